package fingerprint

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Circumstances are what lies between two fingerprints.
type Circumstances struct {
	// Elapsed is the longest time that the container's clocks can have gone on.
	Elapsed time.Duration
	// OtherName: the container came back under another name, OtherAddress: at
	// another address, OtherBoot: on another host or after it was started again.
	OtherName, OtherAddress, OtherBoot bool
	// TCPClosed: its connections were to be closed.
	TCPClosed bool
	// Moved are words that stand for others in the network's facts: the old
	// address and the new one, with OtherAddress.
	Moved map[string]string
}

// Difference is a fact that is not the same, or not there, in the other fingerprint.
type Difference struct {
	Key    string  `json:"key"`
	Before *string `json:"before"` // null: there was no such fact
	After  *string `json:"after"`  // null: there is no such fact
	Note   string  `json:"note,omitempty"`
	Reason string  `json:"reason,omitempty"` // why it must be: of a declared one
}

func (d Difference) String() string {
	s := fmt.Sprintf("%s: %s, now %s", d.Key, shown(d.Before), shown(d.After))
	if d.Note != "" {
		s += " (" + d.Note + ")"
	}
	return s
}

func shown(value *string) string {
	switch {
	case value == nil:
		return "nothing"
	case *value == "":
		return "empty"
	}
	return *value
}

// Report is what a comparison found.
type Report struct {
	Facts       int          `json:"facts"` // of the first
	Differences []Difference `json:"differences"`
	Declared    []Difference `json:"declared"`   // those of the table
	Unreadable  []Fact       `json:"unreadable"` // what could be read neither before nor after
}

// Same: nothing differs but what the table declares.
func (r *Report) Same() bool { return len(r.Differences) == 0 }

// String is one line: "1234 facts, 0 differ (9 declared)".
func (r *Report) String() string {
	more := []string{thousands(len(r.Declared)) + " declared"}
	if n := len(r.Unreadable); n > 0 {
		more = append(more, thousands(n)+" unreadable")
	}
	return fmt.Sprintf("%s facts, %s differ (%s)", thousands(r.Facts), thousands(len(r.Differences)), strings.Join(more, ", "))
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// FormError says that two fingerprints cannot be compared.
type FormError struct{ Before, After uint32 }

func (e *FormError) Error() string {
	return fmt.Sprintf("the fingerprints are of different forms, %d and %d: another version of crucible has taken the first", e.Before, e.After)
}

// Compare finds what differs.
func Compare(before, after *Fingerprint, c Circumstances) (*Report, error) {
	if before.Form != after.Form {
		return nil, &FormError{before.Form, after.Form}
	}
	table := Declared()
	r := &Report{Facts: len(before.Facts), Differences: []Difference{}, Declared: []Difference{}, Unreadable: []Fact{}}
	a, b := moved(before.Facts, c, r), after.Facts
	for len(a) > 0 || len(b) > 0 {
		var old, now *Fact
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Key < b[0].Key:
			old, a = &a[0], a[1:]
		case len(a) == 0 || b[0].Key < a[0].Key:
			now, b = &b[0], b[1:]
		default:
			old, now, a, b = &a[0], &b[0], a[1:], b[1:]
		}
		r.note(old, now, c, table)
	}
	return r, nil
}

// moved gives the network's facts as they must be at another address.
func moved(facts []Fact, c Circumstances, r *Report) []Fact {
	if len(c.Moved) == 0 {
		return facts
	}
	reason := ""
	for _, d := range Declared() {
		if d.Kind == Moves {
			reason = d.Reason
		}
	}
	out := slices.Clone(facts)
	for i := range out {
		f := &out[i]
		if !strings.HasPrefix(f.Key, "network/") {
			continue
		}
		key, value := f.Key, f.Value
		for old, now := range c.Moved {
			key, value = replaceWord(key, old, now), replaceWord(value, old, now)
		}
		if key != f.Key || value != f.Value {
			r.Declared = append(r.Declared, Difference{Key: f.Key, Before: &facts[i].Value, After: &value, Reason: reason})
			f.Key, f.Value = key, value
		}
	}
	slices.SortFunc(out, func(a, b Fact) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// replaceWord replaces a word that is not a part of a longer number or address.
func replaceWord(s, old, now string) string {
	var out strings.Builder
	for {
		at := strings.Index(s, old)
		if at < 0 || old == "" {
			out.WriteString(s)
			return out.String()
		}
		end := at + len(old)
		part := func(i int) bool {
			return i >= 0 && i < len(s) && (s[i] == '.' || s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'f')
		}
		if out.WriteString(s[:at]); part(at-1) || part(end) {
			out.WriteString(old)
		} else {
			out.WriteString(now)
		}
		s = s[end:]
	}
}

// note enters one fact of either or of both.
func (r *Report) note(old, now *Fact, c Circumstances, table []Declaration) {
	var d Difference
	if old != nil {
		d.Key, d.Before, d.Note = old.Key, &old.Value, old.Note
	}
	if now != nil {
		d.Key, d.After = now.Key, &now.Value
		d.Note = cmp.Or(d.Note, now.Note)
	}
	if old != nil && now != nil && old.Value == now.Value {
		if strings.HasPrefix(old.Value, Unreadable) {
			r.Unreadable = append(r.Unreadable, *old)
		}
		return
	}
	for i := range table {
		if table[i].allows(d, c) {
			d.Reason = table[i].Reason
			r.Declared = append(r.Declared, d)
			return
		}
	}
	r.Differences = append(r.Differences, d)
}
