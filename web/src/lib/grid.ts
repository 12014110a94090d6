/** Squares for a number of shards in a width: as large as they can be, and all of them within a height where that goes. */
export function gridFor(total: number, width: number, most: number): { cell: number; gap: number; columns: number; rows: number } {
  for (const cell of [24, 20, 16, 12, 10, 8, 6, 5, 4, 3, 2]) {
    const gap = cell >= 8 ? 2 : cell >= 4 ? 1 : 0
    const columns = Math.max(1, Math.floor((width + gap) / (cell + gap)))
    const rows = Math.ceil(total / columns)
    if (rows * (cell + gap) <= most || cell === 2) return { cell, gap, columns, rows }
  }
  return { cell: 2, gap: 0, columns: 1, rows: total }
}
