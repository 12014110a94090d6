package reasons

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// Words are the codes that people meet at tasks: why attempts and tasks end, and how placements explain themselves.
type Words struct{ Ends, Chosen, Considered map[string]bool }

// endings are the types whose fields Reason and What say why an attempt or a task ended.
var endings = []string{"End", "Failure", "Outcome", "RefusedEvent", "FailureEvent", "Finish", "refusal"}

var clock = regexp.MustCompile(`^[A-Z]+_CLOCK$`)

// CollectWords reads the sources of the services task and node.
func CollectWords(top string) (Words, error) {
	c := collector{consts: map[string]string{}}
	w := Words{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	if err := c.read(top); err != nil {
		return w, err
	}
	for _, f := range c.files {
		switch {
		case strings.HasPrefix(f.dir, "services/task/"):
			c.ends(f, w.Ends)
		case f.dir == "services/node/internal/domain":
			constantsOf(f, "Because", w.Chosen)
			constantsOf(f, "Verdict", w.Considered)
		}
	}
	return w, nil
}

// ends finds reasons in what is written out, in what is given to a field Reason, and among constants of that name.
func (c *collector) ends(f file, to map[string]bool) {
	add := func(e ast.Expr) {
		text, ok := literal(e)
		if !ok {
			text, ok = c.consts[f.name(e)]
		}
		if ok && shaped.MatchString(text) {
			to[text] = true
		}
	}
	if f.dir == "services/task/internal/app" {
		constantsOf(f, "Reason", to)
	}
	ast.Inspect(f.ast, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.CompositeLit:
			name := f.name(n.Type)
			if !slices.Contains(endings, name[strings.LastIndexByte(name, '.')+1:]) {
				return true
			}
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					if key, ok := kv.Key.(*ast.Ident); ok && (key.Name == "Reason" || key.Name == "What") {
						add(kv.Value)
					}
				}
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if sel, ok := l.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reason" && len(n.Lhs) == len(n.Rhs) {
					add(n.Rhs[i])
				}
			}
		case *ast.BasicLit:
			if text, ok := literal(n); ok && clock.MatchString(text) {
				to[text] = true
			}
		}
		return true
	})
}

// constantsOf finds the values of constants whose names begin in the same way.
func constantsOf(f file, prefix string, to map[string]bool) {
	ast.Inspect(f.ast, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if strings.HasPrefix(name.Name, prefix) && i < len(spec.Values) {
				if text, ok := literal(spec.Values[i]); ok {
					to[text] = true
				}
			}
		}
		return true
	})
}
