//go:build cgo

package wasmtime

/*
#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
static void shallot_keep(size_t n) { mallopt(M_TRIM_THRESHOLD, n); mallopt(M_TOP_PAD, n / 16); }
static void shallot_release(size_t keep) { malloc_trim(keep); }
#else
static void shallot_keep(size_t n) {}
static void shallot_release(size_t keep) {}
#endif
*/
import "C"

// kept is how much freed memory of the library's stays with this process, in bytes.
const kept = 4 << 20

// keepMemory keeps small runs from getting their few pages from the kernel and giving them back, each time.
func keepMemory() { C.shallot_keep(kept) }

// FreeMemory gives back what the library has freed: after compiling that is tens of megabytes, in the arenas of all its
// threads.
func FreeMemory() { C.shallot_release(0) }
