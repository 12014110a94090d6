;; Reads /in (descriptor 3), writes to /out (descriptor 4), and tries what it may not. Prints the contents of a.txt and of
;; sub/b.txt, then a dot for each attempt that was refused and an exclamation mark for each that was not.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1000) "a.txt")
  (data (i32.const 1010) "sub/b.txt")
  (data (i32.const 1020) "new.txt")
  (data (i32.const 1030) "../secret")
  (data (i32.const 1040) "/etc/passwd")
  (data (i32.const 1060) "sub/../../secret")
  (data (i32.const 1080) "link")
  (data (i32.const 1090) "../in/a.txt")
  (data (i32.const 1110) "o.txt")
  (data (i32.const 1120) "d")
  (data (i32.const 1130) "d/p.txt")
  (data (i32.const 1140) "made")
  (data (i32.const 1150) "/etc")
  (data (i32.const 1160) "l")
  (data (i32.const 1170) "empty")
  (func $print (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $mark (param $errno i32)
    (i32.store8 (i32.const 64) (select (i32.const 46) (i32.const 33) (local.get $errno)))
    (call $print (i32.const 64) (i32.const 1)))
  ;; Opens to read (flags 0) or to create (flags 1); follows links. The descriptor is at 16.
  (func $open (param $dir i32) (param $at i32) (param $len i32) (param $flags i32) (result i32)
    (call $path_open (local.get $dir) (i32.const 1) (local.get $at) (local.get $len) (local.get $flags)
      (select (i64.const 0x40) (i64.const 0x02) (local.get $flags)) (i64.const 0) (i32.const 0) (i32.const 16)))
  (func $copy (param $at i32) (param $len i32)
    (if (call $open (i32.const 3) (local.get $at) (local.get $len) (i32.const 0)) (then unreachable))
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 4096))
    (if (call $fd_read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (drop (call $fd_close (i32.load (i32.const 16))))
    (call $print (i32.const 4096) (i32.load (i32.const 8))))
  (func $make (param $at i32) (param $len i32) (param $bytes i32)
    (if (call $open (i32.const 4) (local.get $at) (local.get $len) (i32.const 1)) (then unreachable))
    (i32.store (i32.const 0) (i32.const 1140))
    (i32.store (i32.const 4) (local.get $bytes))
    (if (call $fd_write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (drop (call $fd_close (i32.load (i32.const 16)))))
  (func (export "_start")
    (call $copy (i32.const 1000) (i32.const 5))
    (call $copy (i32.const 1010) (i32.const 9))
    (call $mark (call $open (i32.const 3) (i32.const 1020) (i32.const 7) (i32.const 1)))   ;; new file in /in
    (call $mark (call $unlink (i32.const 3) (i32.const 1000) (i32.const 5)))               ;; removal in /in
    (call $mark (call $open (i32.const 3) (i32.const 1030) (i32.const 9) (i32.const 0)))   ;; ../secret
    (call $mark (call $open (i32.const 3) (i32.const 1040) (i32.const 11) (i32.const 0)))  ;; /etc/passwd
    (call $mark (call $open (i32.const 3) (i32.const 1060) (i32.const 16) (i32.const 0)))  ;; sub/../../secret
    (call $mark (call $open (i32.const 3) (i32.const 1080) (i32.const 4) (i32.const 0)))   ;; a link that leads out
    (call $mark (call $open (i32.const 4) (i32.const 1090) (i32.const 11) (i32.const 0)))  ;; from /out into /in
    (call $mark (call $symlink (i32.const 1150) (i32.const 4) (i32.const 4) (i32.const 1160) (i32.const 1))) ;; a link to /etc
    (call $mark (call $fd_prestat_get (i32.const 5) (i32.const 256)))                      ;; a third directory
    (call $make (i32.const 1110) (i32.const 5) (i32.const 4))
    (call $make (i32.const 1170) (i32.const 5) (i32.const 0))
    (if (call $mkdir (i32.const 4) (i32.const 1120) (i32.const 1)) (then unreachable))
    (call $make (i32.const 1130) (i32.const 7) (i32.const 4))))
