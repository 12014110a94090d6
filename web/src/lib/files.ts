import type { Input } from './draft.svelte'

/** More files than this a task does not take. */
export const mostFiles = 1000

/** The files that were dropped, with those in dropped directories, by their paths: one more than most at the end, so that too many are seen to be. */
export async function dropped(data: DataTransfer, most: number): Promise<Input[]> {
  const entries = [...data.items].map((i) => (i.kind === 'file' ? i.webkitGetAsEntry() : null))
  if (entries.every((e) => e === null)) return [...data.files].map((file) => ({ path: file.name, file }))
  const found: Input[] = []
  for (const e of entries) if (e) await walk(e, '', found, most)
  return found
}

async function walk(entry: FileSystemEntry, under: string, found: Input[], most: number): Promise<void> {
  if (found.length > most) return
  const path = under + entry.name
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))
    found.push({ path, file })
    return
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (some.length === 0) return
    for (const e of some) await walk(e, path + '/', found, most)
  }
}

/** The files of an <input type=file>; those of a directory have its name before theirs. */
export function chosen(list: FileList | null, most: number): Input[] {
  return [...(list ?? [])].slice(0, most + 1).map((file) => ({ path: file.webkitRelativePath || file.name, file }))
}

/** Why a file is no program, in words; empty where it is one. A WebAssembly module begins with these four bytes. */
export async function noModule(file: File): Promise<string> {
  const b = new Uint8Array(await file.slice(0, 4).arrayBuffer())
  const is = b.length === 4 && b[0] === 0 && b[1] === 0x61 && b[2] === 0x73 && b[3] === 0x6d
  return is ? '' : `${file.name} is not WebAssembly. In Go: GOOS=wasip1 GOARCH=wasm go build -o prog.wasm`
}

/** The files with others added; one that has the path of another is in its place. */
export function added(files: Input[], others: Input[]): Input[] {
  return [...new Map([...files, ...others].map((i) => [i.path, i])).values()]
}
