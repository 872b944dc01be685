package criu

import "io"

// Explanation is what a log of CRIU's comes to.
type Explanation struct {
	Cause   // no Text: there is no error in the log; no Kind: not a cause that is known
	Telling []Line
}

// maxTelling is how many lines stand for a whole log.
const maxTelling = 10

// Explain reads a log. For a cause that is not known it picks the lines that
// tell most, in their order: what CRIU calls an error, the last ones if there
// are many, and where there is room warnings, the last ones too.
func Explain(r io.Reader) (Explanation, error) {
	lines, err := ParseLog(r)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Cause: findCause(lines)}
	if e.Text == "" || e.Kind != "" {
		return e, nil
	}
	chosen := map[int]bool{}
	for _, level := range []Level{Fault, Warning} {
		for i := len(lines) - 1; i >= 0 && len(chosen) < maxTelling; i-- {
			if lines[i].Level == level && !harmless(lines[i].Text) {
				chosen[i] = true
			}
		}
	}
	for i, line := range lines {
		if chosen[i] {
			e.Telling = append(e.Telling, line)
		}
	}
	return e, nil
}
