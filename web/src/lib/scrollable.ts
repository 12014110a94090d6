/** Makes what scrolls reachable by keyboard, as long as there is something to scroll. */
export function scrollable(element: HTMLElement): () => void {
  const look = () => {
    if (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1) element.tabIndex = 0
    else element.removeAttribute('tabindex')
  }
  const sizes = new ResizeObserver(look)
  sizes.observe(element)
  for (const child of element.children) sizes.observe(child)
  look()
  return () => sizes.disconnect()
}
