let probe: HTMLElement | undefined

/** The colour that a variable of the style stands for now, as canvases want it: they do not know variables. */
export function color(variable: string): string {
  if (!probe) {
    probe = document.createElement('span')
    probe.hidden = true
    document.body.append(probe)
  }
  probe.style.color = `var(${variable})`
  return getComputedStyle(probe).color
}
