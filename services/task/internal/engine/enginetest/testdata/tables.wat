;; Grows a table until it cannot, then traps.
(module
  (memory (export "memory") 1)
  (table $t 1 funcref)
  (func (export "_start")
    (loop $more
      (if (i32.eq (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1)) (then unreachable))
      (br $more))))
