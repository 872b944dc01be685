package edit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// bundle is bundle.json, with all that this code does not know. Numbers keep
// their digits.
type bundle struct {
	root    map[string]any
	changed bool
}

func readBundle(data []byte) (*bundle, error) {
	b := &bundle{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&b.root); err != nil {
		return nil, err
	}
	if b.root == nil {
		return nil, errors.New("is no object")
	}
	return b, nil
}

func (b *bundle) bytes() ([]byte, error) { return json.Marshal(b.root) }

// object is a part of it, made if it is not there.
func (b *bundle) object(path ...string) map[string]any {
	at := b.root
	for _, key := range path {
		below, ok := at[key].(map[string]any)
		if !ok {
			below = map[string]any{}
			at[key] = below
		}
		at = below
	}
	return at
}

// list is a part of it that is a list, or nil.
func (b *bundle) list(path ...string) []any {
	last := len(path) - 1
	all, _ := b.object(path[:last]...)[path[last]].([]any)
	return all
}

// set changes a value; nil takes it away.
func (b *bundle) set(object map[string]any, key string, value any) {
	b.changed = true
	if value == nil {
		delete(object, key)
		return
	}
	object[key] = value
}

// text is a value as people read it, "" for none.
func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
