package memory

import (
	"bytes"
	"fmt"
	"regexp"
)

// MaxMatch is the most bytes that a match is sure to be found with.
const MaxMatch = 64 << 10

// Pattern is what Search looks for.
type Pattern struct {
	// One of the two.
	literal []byte
	expr    *regexp.Regexp
}

// Compile makes a pattern of a regular expression (regexp/syntax). In it, ^ and
// $ stand for the bounds of memory without a hole, or with (?m) of a line; a byte
// that is no UTF-8 is matched by . and negated classes only.
func Compile(expr string) (*Pattern, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	if re.MatchString("") {
		return nil, fmt.Errorf("the expression %q matches nothing, and so everywhere", expr)
	}
	if literal, whole := re.LiteralPrefix(); whole {
		return Literal([]byte(literal)), nil
	}
	return &Pattern{expr: re}, nil
}

// Literal is a pattern of certain bytes, at least one.
func Literal(b []byte) *Pattern { return &Pattern{literal: bytes.Clone(b)} }

// behind is how far a match can reach over the place where it begins.
func (p *Pattern) behind() int {
	if p.expr == nil {
		return len(p.literal)
	}
	return MaxMatch
}

// find calls found for each match in b that begins in b[from:to], in order,
// and none that overlaps the one before.
func (p *Pattern) find(b []byte, from, to int, found func(start, end int)) {
	if p.expr != nil {
		p.findExpr(b, from, to, found)
		return
	}
	n := len(p.literal)
	for from < to {
		i := bytes.Index(b[from:min(len(b), to+n-1)], p.literal)
		if i < 0 {
			return
		}
		found(from+i, from+i+n)
		from += i + n
	}
}

// findExpr leaves it to regexp, which looks for the literal that an expression
// begins with in the same way, and takes a second for 50 MB where there is none.
func (p *Pattern) findExpr(b []byte, from, to int, found func(start, end int)) {
	if from >= to {
		return
	}
	// The byte before decides whether ^ and \b match.
	lead := max(0, from-1)
	all := p.expr.FindAllIndex(b[lead:], -1)
	if len(all) > 0 && lead+all[0][0] < from {
		// It would begin in the match before, and may hide one.
		lead = from
		all = p.expr.FindAllIndex(b[lead:], -1)
	}
	for _, loc := range all {
		if start := lead + loc[0]; start < to && loc[1] > loc[0] {
			found(start, lead+loc[1])
		}
	}
}
