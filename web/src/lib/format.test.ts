import { describe, expect, test } from 'vitest'
import { ago, bytes, parseDuration, parseSize, peerName, seconds, span, splitWords, time, took } from './format'

test.each([
  ['0', '0 B'],
  ['1023', '1023 B'],
  ['1536', '1.5 KiB'],
  ['536870912', '512 MiB'],
  ['', '–'],
  ['nonsense', '–'],
  [null, '–'],
])('bytes of %j are %s', (n, words) => expect(bytes(n)).toBe(words))

test.each([
  [undefined, '–'],
  [0, '0 s'],
  [0.00002, 'under 0.1 ms'],
  [0.0032, '3.2 ms'],
  [0.45, '450 ms'],
  [3.21, '3.2 s'],
  [250, '4 min 10 s'],
  [3600, '1 h'],
  [187_200, '2 d 4 h'],
  [-5, '0 s'],
])('%j seconds are %s', (s, words) => expect(span(s)).toBe(words))

test('durations and times of protobuf', () => {
  expect(seconds('1.500s')).toBe(1.5)
  expect(seconds('0s')).toBe(0)
  expect(seconds(null)).toBeUndefined()
  expect(seconds('soon')).toBeUndefined()
  expect(time('2026-11-27T02:15:46.379721081Z')).toBe(Date.UTC(2026, 10, 27, 2, 15, 46, 379))
  expect(time('1970-01-01T00:00:00Z')).toBeUndefined()
  expect(ago('2026-11-27T00:00:00Z', Date.UTC(2026, 10, 27, 0, 0, 5))).toBe('5 s ago')
  expect(took({ created_at: '2026-11-27T00:00:00Z', finished_at: null }, Date.UTC(2026, 10, 27, 0, 0, 5))).toBe(5)
})

test('a peer is seen by its alias, never by its id where it has one', () => {
  expect(peerName({ alias: 'p-3k9xw2mh', peer_id: '12D3KooWEGyeNZEWoA9YQqvg13ZdazV8Qh8FU5fGXxiHUg5p2f6n' })).toBe('p-3k9xw2mh')
  expect(peerName({ alias: '', peer_id: '12D3KooWEGyeNZEWoA9YQqvg13ZdazV8Qh8FU5fGXxiHUg5p2f6n' })).toBe('…Ug5p2f6n')
  expect(peerName({})).toBe('–')
})

describe('what people type', () => {
  test.each([
    ['64MiB', 64 << 20],
    ['1.5 GiB', 1.5 * 2 ** 30],
    ['10MB', 10_000_000],
    ['10m', 10 << 20],
    ['1024', 1024],
    ['lots', undefined],
    ['-1', undefined],
  ])('size %s', (text, n) => expect(parseSize(text)).toBe(n))
  test.each([
    ['2s', '2s'],
    ['1h30m', '5400s'],
    ['1.5 min', '90s'],
    ['250ms', '0.25s'],
    ['30', '30s'],
    ['5 parsecs', undefined],
    ['', undefined],
  ])('time %s', (text, d) => expect(parseDuration(text)).toBe(d))
  test.each([
    ['-top 5 /in/words.txt', ['-top', '5', '/in/words.txt'], false],
    [`a 'b c' "d \\" e" f\\ g ""`, ['a', 'b c', 'd " e', 'f g', ''], false],
    ["it's", ['its'], true],
    ['  ', [], false],
  ])('words %s', (text, words, open) => expect(splitWords(text)).toEqual({ words, open }))
})
