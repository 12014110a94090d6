/** A question before work that cannot be taken back; Dialogs.svelte shows it. */
export interface Question {
  title: string
  text: string
  yes: string
  no?: string
}

interface Open extends Question {
  answer(yes: boolean): void
}

export const dialogs: { question: Open | undefined; help: boolean } = $state({ question: undefined, help: false })

export function confirm(question: Question): Promise<boolean> {
  dialogs.question?.answer(false)
  return new Promise((resolve) => {
    dialogs.question = {
      ...question,
      answer: (yes) => {
        dialogs.question = undefined
        resolve(yes)
      },
    }
  })
}

/** Short messages of what was done or failed, newest last. */
export const toasts: { list: { id: number; text: string; bad: boolean }[] } = $state({ list: [] })
let next = 0

export function toast(text: string, bad = false): void {
  const id = next++
  toasts.list = [...toasts.list.slice(-3), { id, text, bad }]
  if (!bad) setTimeout(() => dismiss(id), 6000)
}

export function dismiss(id: number): void {
  toasts.list = toasts.list.filter((t) => t.id !== id)
}
