;; Tries what no program may: sockets and preopened directories beyond its own. Prints, as digits, the error numbers of
;; sock_send on descriptors 3 to 9, fd_prestat_get on 5, and how many variables its environment has.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $sock_send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $put (param $at i32) (param $v i32)
    (i32.store8 (local.get $at) (select (i32.const 46) (i32.const 33) (i32.eqz (i32.eqz (local.get $v))))))
  (func (export "_start")
    (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $next
      (call $put (i32.add (i32.const 13) (local.get $fd)) (call $sock_send (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 512)))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $fd) (i32.const 10))))
    (call $put (i32.const 23) (call $fd_prestat_get (i32.const 5) (i32.const 256)))
    (drop (call $environ_sizes_get (i32.const 512) (i32.const 516)))
    (i32.store8 (i32.const 24) (i32.add (i32.const 48) (i32.load (i32.const 512))))
    (i32.store8 (i32.const 25) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 10))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
