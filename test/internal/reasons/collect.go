// Package reasons knows the machine-readable reasons of errors: which there are, by the sources that give them to kit/fault, and what each means, by a table.
package reasons

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// own is the prefix of this project's packages.
const own = "github.com/shallot-net/shallot/"

var shaped = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// Use is one reason that the sources give.
type Use struct {
	Code  string // of gRPC, as INVALID_ARGUMENT; empty where only the program knows when it runs
	Where string // the folder of the package
}

// helpers are the functions of kit/fault that make errors: the place of the reason among the arguments, and the code that they stand for.
var helpers = map[string]taker{
	"New": {reason: 1, code: 0}, "Wrap": {reason: 2, code: 1},
	"InvalidArgument": {code: -1, name: "INVALID_ARGUMENT"}, "NotFound": {code: -1, name: "NOT_FOUND"}, "Unavailable": {code: -1, name: "UNAVAILABLE"},
	"FailedPrecondition": {code: -1, name: "FAILED_PRECONDITION"}, "ResourceExhausted": {code: -1, name: "RESOURCE_EXHAUSTED"}, "AlreadyExists": {code: -1, name: "ALREADY_EXISTS"},
	"PermissionDenied": {code: -1, name: "PERMISSION_DENIED"}, "Unauthenticated": {code: -1, name: "UNAUTHENTICATED"},
}

// taker is a function that takes a reason among its arguments, and hands it on to kit/fault.
type taker struct {
	reason, code int // places; code is -1 where the function stands for one
	name         string
}

type file struct {
	dir     string
	imports map[string]string // local name to folder or path
	ast     *ast.File
}

type collector struct {
	files  []file
	consts map[string]string // folder.name
	takers map[string]taker  // folder.name
	found  map[string]map[Use]bool
}

// Collect reads all sources below the root of the repository, without tests, fakes and generated code, and returns the reasons that they give.
func Collect(top string) (map[string][]Use, error) {
	c := collector{consts: map[string]string{}, takers: map[string]taker{}, found: map[string]map[Use]bool{}}
	if err := c.read(top); err != nil {
		return nil, err
	}
	for name, t := range helpers {
		c.takers["kit/fault."+name] = t
	}
	// A function that hands its own argument on is a taker, too; and one that hands on to that.
	for before := -1; before != len(c.takers); {
		before = len(c.takers)
		for _, f := range c.files {
			c.learn(f)
		}
	}
	for _, f := range c.files {
		c.look(f)
	}
	out := map[string][]Use{}
	for reason, uses := range c.found {
		out[reason] = slices.SortedFunc(maps.Keys(uses), func(a, b Use) int { return strings.Compare(a.Where+a.Code, b.Where+b.Code) })
	}
	return out, nil
}

func (c *collector) read(top string) error {
	set := token.NewFileSet()
	for _, module := range []string{"kit", "broker", "services", "gateway", "cli"} {
		err := filepath.WalkDir(filepath.Join(top, module), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "fake" || d.Name() == "testdata" || strings.HasSuffix(d.Name(), "test") && d.Name() != "test") {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || strings.HasSuffix(p, ".pb.go") {
				return nil
			}
			tree, err := parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			dir, err := filepath.Rel(top, filepath.Dir(p))
			if err != nil {
				return err
			}
			f := file{dir: filepath.ToSlash(dir), imports: map[string]string{}, ast: tree}
			for _, i := range tree.Imports {
				at, _ := strconv.Unquote(i.Path.Value)
				name := path.Base(at)
				if i.Name != nil {
					name = i.Name.Name
				}
				f.imports[name] = strings.TrimPrefix(at, own)
			}
			c.files = append(c.files, f)
			c.constants(f)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) constants(f file) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) {
				if text, ok := literal(spec.Values[i]); ok {
					c.consts[f.dir+"."+name.Name] = text
				}
			}
		}
		return true
	})
}

func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	case *ast.CallExpr: // a conversion, Problem("UNSIGNED")
		if len(e.Args) == 1 {
			return literal(e.Args[0])
		}
	}
	return "", false
}

// name of what an expression refers to, as folder.name.
func (f file) name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return f.dir + "." + e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			if at, ok := f.imports[x.Name]; ok {
				return at + "." + e.Sel.Name
			}
		}
		return f.dir + "." + e.Sel.Name // a method
	case *ast.IndexExpr:
		return f.name(e.X)
	}
	return ""
}

// learn finds functions that hand an argument of theirs on as a reason.
func (c *collector) learn(f file) {
	for _, decl := range f.ast.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		places := map[string]int{}
		n := 0
		for _, p := range fn.Type.Params.List {
			for _, name := range p.Names {
				places[name.Name] = n
				n++
			}
		}
		ast.Inspect(fn.Body, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			t, ok := c.takers[f.name(call.Fun)]
			if !ok || t.reason >= len(call.Args) {
				return true
			}
			if id, ok := call.Args[t.reason].(*ast.Ident); ok {
				if at, ok := places[id.Name]; ok {
					made := taker{reason: at, code: -1, name: t.codeOf(call)}
					if t.code >= 0 && t.code < len(call.Args) {
						if id, ok := call.Args[t.code].(*ast.Ident); ok {
							if at, ok := places[id.Name]; ok {
								made.code = at
							}
						}
					}
					if _, known := c.takers[f.dir+"."+fn.Name.Name]; !known {
						c.takers[f.dir+"."+fn.Name.Name] = made
					}
				}
			}
			return true
		})
	}
}

// look finds reasons: arguments of takers, and fields of fault.Error.
func (c *collector) look(f file) {
	for _, decl := range f.ast.Decls {
		parameters := map[string]bool{}
		if fn, ok := decl.(*ast.FuncDecl); ok {
			for _, p := range fn.Type.Params.List {
				for _, name := range p.Names {
					parameters[name.Name] = true
				}
			}
		}
		c.lookAt(f, decl, parameters)
	}
}

func (c *collector) lookAt(f file, decl ast.Decl, parameters map[string]bool) {
	add := func(e ast.Expr, code string) {
		if id, ok := e.(*ast.Ident); ok && parameters[id.Name] {
			return // whoever calls gives it
		}
		text, ok := literal(e)
		if !ok {
			text, ok = c.consts[f.name(e)]
		}
		if !ok || !shaped.MatchString(text) {
			return
		}
		if c.found[text] == nil {
			c.found[text] = map[Use]bool{}
		}
		c.found[text][Use{code, f.dir}] = true
	}
	ast.Inspect(decl, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.CallExpr:
			if t, ok := c.takers[f.name(n.Fun)]; ok && t.reason < len(n.Args) {
				add(n.Args[t.reason], t.codeOf(n))
			}
		case *ast.CompositeLit:
			if f.name(n.Type) != "kit/fault.Error" {
				return true
			}
			code := ""
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && f.name(kv.Key) == f.dir+".Code" {
					code = named(kv.Value)
				}
			}
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && f.name(kv.Key) == f.dir+".Reason" {
					add(kv.Value, code)
				}
			}
		}
		return true
	})
}

// code that a call of a taker stands for.
func (t taker) codeOf(call *ast.CallExpr) string {
	if t.code < 0 || t.code >= len(call.Args) {
		return t.name
	}
	return named(call.Args[t.code])
}

var word = regexp.MustCompile(`[A-Z][a-z]+`)

// named is codes.NotFound as NOT_FOUND.
func named(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "codes" {
		return ""
	}
	if sel.Sel.Name == "Canceled" {
		return "CANCELLED"
	}
	return strings.ToUpper(strings.Join(word.FindAllString(sel.Sel.Name, -1), "_"))
}
