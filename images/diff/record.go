package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Field is one fact that differs. It is empty where a thing does not have it.
type Field struct {
	Name string `json:"name"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// record is what is known of a thing: a text for each name, in order.
type record struct {
	names  []string
	values map[string]string
}

func (r *record) set(name, value string) {
	if r.values == nil {
		r.values = map[string]string{}
	}
	if _, there := r.values[name]; !there {
		r.names = append(r.names, name)
	}
	r.values[name] = value
}

// fields are those that differ: in the order of a, then those that only b has.
func fields(a, b record) (list []Field) {
	for _, name := range a.names {
		if a.values[name] != b.values[name] {
			list = append(list, Field{name, a.values[name], b.values[name]})
		}
	}
	for _, name := range b.names {
		if _, both := a.values[name]; !both && b.values[name] != "" {
			list = append(list, Field{name, "", b.values[name]})
		}
	}
	return list
}

// recordOf makes a record of anything that has a form in JSON: a name for
// each value, made of the keys on the way to it, "links.eth0.mtu". Those
// that ignore names are left out, with all below them.
func recordOf(v any, ignore ...string) (record, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return record{}, err
	}
	return parseRecord(text, ignore...)
}

func parseRecord(text []byte, ignore ...string) (r record, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return r, err
	}
	r.add("", tree, ignore)
	return r, nil
}

func (r *record) add(name string, v any, ignore []string) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			path := strings.TrimPrefix(name+"."+k, ".")
			if !slices.Contains(ignore, path) && !slices.Contains(ignore, "*."+k) {
				r.add(path, v[k], ignore)
			}
		}
	case []any:
		r.addList(name, v, ignore)
	case string:
		r.set(name, v)
	case nil:
	default:
		r.set(name, fmt.Sprint(v))
	}
}

// addList makes one value of a list of words or numbers. What is in another
// list is known by its own name if it has one, so that one more in the middle
// does not change all behind it.
func (r *record) addList(name string, list []any, ignore []string) {
	words := make([]string, 0, len(list))
	for _, v := range list {
		switch v := v.(type) {
		case string:
			words = append(words, v)
		case json.Number, bool:
			words = append(words, fmt.Sprint(v))
		}
	}
	if len(words) == len(list) {
		r.set(name, strings.Join(words, " "))
		return
	}
	seen := map[string]int{}
	for n, v := range list {
		key := keyOf(v)
		if key == "" {
			key = strconv.Itoa(n)
		}
		if seen[key]++; seen[key] > 1 {
			key += "#" + strconv.Itoa(seen[key])
		}
		r.add(name+"."+key, v, ignore)
	}
}

// keyOf is what an object in a list is known by.
func keyOf(v any) string {
	object, _ := v.(map[string]any)
	for _, k := range []string{"name", "text", "path", "destination", "tid", "fd", "type"} {
		switch v := object[k].(type) {
		case string:
			return v
		case json.Number:
			return v.String()
		}
	}
	return ""
}
