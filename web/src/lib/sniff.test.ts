import { expect, test } from 'vitest'
import { hexdump, pictureType, plain, separated, sniff, table } from './sniff'

const text = (s: string) => new TextEncoder().encode(s)

test.each([
  [new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0]), 'png'],
  [new Uint8Array([0xff, 0xd8, 0xff, 0xe0]), 'jpeg'],
  [text('GIF89a'), 'gif'],
  [text('RIFF1234WEBPVP8 '), 'webp'],
  [text('RIFF1234WAVEfmt '), 'text'],
  [text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'), 'text'],
  [text('<html><script>alert(1)</script>'), 'text'],
  [text('häß 💧\n'), 'text'],
  [text('häß').subarray(0, 2), 'text'], // cut in a character
  [new Uint8Array([0xff, 0xfe, 0, 1]), 'bytes'],
  [text('a\u0000b'), 'bytes'],
  [new Uint8Array(), 'text'],
])('%# is %s', (bytes, kind) => expect(sniff(bytes)).toBe(kind))

test('only what a browser decodes is a picture', () => {
  expect(pictureType('png')).toBe('image/png')
  expect(pictureType('text')).toBeUndefined()
})

test('a table is what has the same cells in every row', () => {
  expect(table('name,n\n"a, b",1\nc,2\n')).toEqual([
    ['name', 'n'],
    ['a, b', '1'],
    ['c', '2'],
  ])
  expect(table('a\tb\n1\t2')).toEqual([
    ['a', 'b'],
    ['1', '2'],
  ])
  expect(table('hello, world\nthis is text')).toBeUndefined()
  expect(table('one line, only')).toBeUndefined()
  expect(table('')).toBeUndefined()
  expect(table('{"a":1}\n{"a":2,"b":[3]}')).toEqual([
    ['a', 'b'],
    ['1', ''],
    ['2', '[3]'],
  ])
  expect(table('[1,2]')).toBeUndefined()
  expect(table('{broken')).toBeUndefined()
})

test('quotes in separated text', () => {
  expect(separated('"a ""b""","c\nd"', ',', 10)).toEqual([['a "b"', 'c\nd']])
  expect(separated('1\n2\n3', ',', 2)).toEqual([['1'], ['2']])
})

test('orders for terminals are left out', () => expect(plain('\u001b[31mred\u001b[0m \u001b]0;title\u0007x')).toBe('red x'))

test('bytes as numbers', () => expect(hexdump(text('GET / \u0001'))).toBe('00000000  ' + '47 45 54 20 2f 20 01'.padEnd(50) + 'GET / ·'))
