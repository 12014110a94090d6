;; Begins with 32 MiB of memory and does nothing.
(module
  (memory (export "memory") 512)
  (func (export "_start")))
