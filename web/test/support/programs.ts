/** A WebAssembly command that never ends. */
export const endless = Buffer.from(
  [
    '0061736d01000000', // a module, version 1
    '010401600000', // a type: nothing in, nothing out
    '03020100', // a function of it
    '0503010001', // a page of memory
    '0713' + '02' + '06' + Buffer.from('memory').toString('hex') + '0200' + '06' + Buffer.from('_start').toString('hex') + '0000',
    '0a09' + '01' + '07' + '00' + '0340' + '0c00' + '0b' + '0b', // a loop that begins again
  ].join(''),
  'hex',
)

/** The smallest picture. */
export const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64')
