package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"crucible/images/inspect/criufile"
)

// document is one of CRIU's files as JSON: what is not looked at stays as it is.
type document struct {
	path    string
	whole   map[string]any
	entries []object
}

// object is a message, or a part of one.
type object = map[string]any

func load(ctx context.Context, path string) (*document, error) {
	var b bytes.Buffer
	if err := criufile.Decode(ctx, &b, path, criufile.DecodeOptions{}); err != nil {
		return nil, err
	}
	d := &document{path: path}
	dec := json.NewDecoder(&b)
	dec.UseNumber()
	if err := dec.Decode(&d.whole); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	list, _ := d.whole["entries"].([]any)
	for _, e := range list {
		o, ok := e.(object)
		if !ok {
			return nil, fmt.Errorf("read %s: an entry is no message", path)
		}
		d.entries = append(d.entries, o)
	}
	return d, nil
}

// loadAll reads the files whose names match.
func loadAll(ctx context.Context, dir, pattern string) (all []*document, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		d, err := load(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// save writes the file anew.
func (d *document) save(ctx context.Context) error {
	list := make([]any, 0, len(d.entries))
	for _, e := range d.entries {
		list = append(list, e)
	}
	d.whole["entries"] = list
	data, err := json.Marshal(d.whole)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := criufile.Encode(ctx, &b, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("write %s: %w", d.path, err)
	}
	return os.WriteFile(d.path, b.Bytes(), 0o600)
}

// number is a field, 0 if it is not there. Some are in hexadecimal.
func number(o object, key string) int64 {
	switch v := o[key].(type) {
	case json.Number:
		n, _ := v.Int64()
		return n
	case int64:
		return v
	case string:
		var n int64
		if _, err := fmt.Sscanf(v, "0x%x", &n); err == nil {
			return n
		}
	}
	return 0
}

func text(o object, key string) string {
	s, _ := o[key].(string)
	return s
}

func part(o object, key string) object {
	p, _ := o[key].(object)
	return p
}

// replace changes a number wherever a field of that name has it.
func replace(v any, key string, old, new int64) {
	switch v := v.(type) {
	case object:
		if _, has := v[key]; has && number(v, key) == old {
			v[key] = new
		}
		for _, inner := range v {
			replace(inner, key, old, new)
		}
	case []any:
		for _, inner := range v {
			replace(inner, key, old, new)
		}
	}
}
