;; Asks for 3 GiB at once, prints "refused" when it does not get them, and exits 0.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "refused\n")
  (func (export "_start")
    (if (i32.ne (memory.grow (i32.const 49152)) (i32.const -1)) (then (return)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 8))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
