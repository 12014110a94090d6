package wasmcheck

import (
	"slices"
	"strings"
)

// signature is a function type as text, for example "(i32 i64) -> (i32)".
type signature string

// Offered is the one module whose functions can be imported.
const Offered = "wasi_snapshot_preview1"

// What is offered, written as in WASI: i is an i32, I an i64; all but proc_exit return an errno.
var offered = func() map[string]signature {
	all := map[string]signature{"proc_exit": "(i32) -> ()"}
	for name, params := range map[string]string{
		"args_get": "ii", "args_sizes_get": "ii", "environ_get": "ii", "environ_sizes_get": "ii",
		"clock_res_get": "ii", "clock_time_get": "iIi",
		"fd_advise": "iIIi", "fd_allocate": "iII", "fd_close": "i", "fd_datasync": "i", "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii",
		"fd_fdstat_set_rights": "iII", "fd_filestat_get": "ii", "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi",
		"fd_pread": "iiiIi", "fd_prestat_get": "ii", "fd_prestat_dir_name": "iii", "fd_pwrite": "iiiIi", "fd_read": "iiii",
		"fd_readdir": "iiiIi", "fd_renumber": "ii", "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii",
		"path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi", "path_link": "iiiiiii",
		"path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii", "path_rename": "iiiiii",
		"path_symlink": "iiiii", "path_unlink_file": "iii",
		"poll_oneoff": "iiii", "proc_raise": "i", "sched_yield": "", "random_get": "ii",
		"sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
	} {
		words := strings.NewReplacer("i", "i32 ", "I", "i64 ").Replace(params)
		all[name] = signature("(" + strings.TrimSpace(words) + ") -> (i32)")
	}
	return all
}()

var offeredNames = func() string {
	names := make([]string, 0, len(offered))
	for name := range offered {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}()

var valueTypes = map[byte]string{
	0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref",
}

// types checks those of the imports and of _start. Only plain function types are looked at: a module with others is for
// the compiler to judge.
func (m *module) types() error {
	if len(m.wanted) == 0 {
		return nil
	}
	r, n, err := m.section(secType, maxTypes, "types")
	if err != nil {
		return err
	}
	left := len(m.wanted)
	for i := range n {
		form, err := r.byte()
		if err != nil {
			return err
		}
		if form != 0x60 {
			return nil
		}
		want, wanted := m.wanted[i]
		got, err := r.funcType(wanted)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		if got != want {
			reason := ReasonImport
			if m.names[i] == "_start" {
				reason = ReasonNoStart
			}
			return fail(reason, "the module's type of %s is %s, and must be %s", m.names[i], got, want)
		}
		if left--; left == 0 {
			return nil
		}
	}
	return fail(ReasonNotWasm, "the module is broken: a function has a type that is not there (there are %d)", n)
}

const maxParams = 1000

// funcType reads a function type, and says what it is when that is asked for.
func (r *reader) funcType(show bool) (signature, error) {
	var text strings.Builder
	for _, sep := range []string{"(", ") -> ("} {
		n, err := r.u32()
		if err != nil {
			return "", err
		}
		if n > maxParams {
			return "", fail(ReasonTooLarge, "the module has a function with %d parameters or results, and one may have %d", n, maxParams)
		}
		text.WriteString(sep)
		for k := range n {
			b, err := r.byte()
			if err != nil {
				return "", err
			}
			name, ok := valueTypes[b]
			if !ok { // a reference type with more to it
				if err := r.refType(b); err != nil {
					return "", err
				}
				name = "ref"
			}
			if !show {
				continue
			}
			if k > 0 {
				text.WriteByte(' ')
			}
			text.WriteString(name)
		}
	}
	text.WriteByte(')')
	return signature(text.String()), nil
}

// refType reads what follows the first byte of a typed reference: a heap type, which is a signed number.
func (r *reader) refType(first byte) error {
	if first != 0x63 && first != 0x64 {
		if first >= 0x68 && first <= 0x74 { // abstract heap types in their short form
			return nil
		}
		return fail(ReasonNotWasm, "the module is broken: %#x before byte %d is no value type", first, r.pos())
	}
	_, err := r.uleb(5, 35)
	return err
}
