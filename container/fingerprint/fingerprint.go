package fingerprint

import (
	"cmp"
	"fmt"
	"slices"

	"crucible/proto/imagepb"
)

// Form is the number of the canonical form. It is raised whenever the same
// container would give other facts: fingerprints of two forms cannot be compared.
const Form = 1

// Fact is one thing that the kernel shows.
type Fact struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// For people, and for the table of declared differences; not compared.
	Note string `json:"note,omitempty"`
}

// Fingerprint is all facts, sorted by key, each key once.
type Fingerprint struct {
	Form  uint32
	Facts []Fact
}

// Unreadable begins the value of a fact that could not be read.
const Unreadable = "unreadable: "

// Proto is the fingerprint as fingerprint.pb holds it.
func (f *Fingerprint) Proto() *imagepb.Fingerprint {
	out := &imagepb.Fingerprint{Form: f.Form}
	for _, fact := range f.Facts {
		out.Facts = append(out.Facts, &imagepb.Fact{Key: fact.Key, Value: fact.Value, Note: fact.Note})
	}
	return out
}

// FromProto is the way back. The file may be anybody's: the order is checked.
func FromProto(p *imagepb.Fingerprint) (*Fingerprint, error) {
	f := &Fingerprint{Form: p.GetForm()}
	for i, fact := range p.GetFacts() {
		if i > 0 && fact.GetKey() <= f.Facts[i-1].Key {
			return nil, fmt.Errorf("fingerprint: fact %q comes after %q", fact.GetKey(), f.Facts[i-1].Key)
		}
		f.Facts = append(f.Facts, Fact{Key: fact.GetKey(), Value: fact.GetValue(), Note: fact.GetNote()})
	}
	return f, nil
}

// facts is a fingerprint that is being taken.
type facts struct {
	byKey    map[string]Fact
	declared []Declaration
}

func newFacts() *facts { return &facts{byKey: map[string]Fact{}, declared: Declared()} }

// put adds a fact, unless the table says that it is not written down. A second
// one of the same key has a number.
func (f *facts) put(key, value string) { f.note(key, value, "") }

func (f *facts) note(key, value, note string) {
	if f.skipped(key) {
		return
	}
	// Now, and not when it is stored: what is compared must be the same text.
	key, value, note = imagepb.Text(key), imagepb.Text(value), imagepb.Text(note)
	unique := key
	for n := 2; ; n++ {
		if _, taken := f.byKey[unique]; !taken {
			break
		}
		unique = fmt.Sprintf("%s#%d", key, n)
	}
	f.byKey[unique] = Fact{Key: unique, Value: value, Note: note}
}

// cannot notes what could not be read.
func (f *facts) cannot(key string, err error) { f.put(key, Unreadable+reason(err)) }

func (f *facts) skipped(key string) bool {
	for i := range f.declared {
		if d := &f.declared[i]; d.Kind == NotRecorded && match(d.Key, key) {
			return true
		}
	}
	return false
}

func (f *facts) fingerprint() *Fingerprint {
	out := &Fingerprint{Form: Form, Facts: make([]Fact, 0, len(f.byKey))}
	for _, fact := range f.byKey {
		out.Facts = append(out.Facts, fact)
	}
	slices.SortFunc(out.Facts, func(a, b Fact) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
