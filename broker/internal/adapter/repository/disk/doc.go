// Package disk keeps blocks and pins on one disk: blocks appended to pack files, their places and the pins in a small LevelDB index.
//
// Why so, by measurement on two cores: 1 GiB in blocks of 1 MiB, synced, is written at 400-1290 MB/s into packs and at 490-780 MB/s as
// a file per block (490-620 with go-ds-flatfs), and only packs spare small blocks a file of their own. Blocks inside a log-structured
// store are written several times over: LevelDB with small buffers took 60-100 µs of CPU for 2 KiB and 2.7 ms for 64 KiB. Pebble adds
// 15 MB to the binary and 20 to 35 MiB to the resident set, SQLite 4 MB and 140-190 µs a row. LevelDB with nothing but places and pins
// in it adds 1 MB and takes a few µs.
//
// Order of writes: bytes into a pack, then (when durable) fdatasync of every pack with unsynced bytes, then one index batch. So what the
// index durably says is on disk. A place that was not durable and lost its bytes in a power cut is recognised by the record's header,
// and counts as absent.
package disk
