package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A remedy that names a flag names one that there is. The packages below know
// nothing of the command line, so their sources are read for what they say.
func TestRemediesNameFlags(t *testing.T) {
	root := (&app{}).command(nil)
	has := func(command, flag string) bool {
		c, _, err := root.Find([]string{command})
		return err == nil && c != root && (c.Flags().Lookup(flag) != nil || c.InheritedFlags().Lookup(flag) != nil)
	}
	quoted, flags := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`(?:^|[ (])--([a-z-]+[a-z])`)
	checked := 0
	for _, r := range append(remedies(t, "../../checkpoint"), remedies(t, "../../restore")...) {
		for _, q := range quoted.FindAllString(r.text, -1) {
			words := strings.Fields(strings.Trim(q, "`"))
			if len(words) == 0 || words[0] != "crucible" {
				continue // another program's
			}
			for _, m := range flags.FindAllStringSubmatch(q, -1) {
				if !has(words[1], m[1]) {
					t.Errorf("%s: crucible %s has no --%s: %q", r.at, words[1], m[1], r.text)
				}
			}
		}
		plain := quoted.ReplaceAllString(r.text, "")
		for _, m := range flags.FindAllStringSubmatch(plain, -1) {
			checked++
			if !has("checkpoint", m[1]) && !has("restore", m[1]) {
				t.Errorf("%s: neither checkpoint nor restore has --%s: %q", r.at, m[1], r.text)
			}
			if strings.Contains(plain, "restore with --"+m[1]) && !has("restore", m[1]) {
				t.Errorf("%s: restore has no --%s: %q", r.at, m[1], r.text)
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d flags were found", checked)
	}
}

// remedy is a text for the user, and where it stands.
type remedy struct {
	at   token.Position
	text string
}

// remedies finds what is put into a field called Remedy.
func remedies(t *testing.T, dir string) (all []remedy) {
	t.Helper()
	files := token.NewFileSet()
	literals := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, remedy{files.Position(l.Pos()), text})
			}
			return true
		})
	}
	isRemedy := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name == "Remedy"
		case *ast.SelectorExpr:
			return e.Sel.Name == "Remedy"
		}
		return false
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if isRemedy(n.Key) {
					literals(n.Value)
				}
			case *ast.AssignStmt:
				if slices.ContainsFunc(n.Lhs, isRemedy) {
					for _, e := range n.Rhs {
						literals(e)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
