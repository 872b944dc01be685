package plan

import (
	"encoding/json"
	"reflect"
	"strings"
)

// schema is the part of JSON schema (2020-12) that experiment files need.
type schema struct {
	Version     string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name, or several
	Enum        []string           `json:"enum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	OneOf       []*schema          `json:"oneOf,omitempty"`
	Least       int                `json:"minProperties,omitempty"`
	Most        int                `json:"maxProperties,omitempty"`
	// Additional is a schema, or false: no others are allowed.
	Additional any `json:"additionalProperties,omitempty"`
}

// Schema is the JSON schema of an experiment file, for editors. Any value may be
// a text with a "${FACTOR}" in it.
func Schema() ([]byte, error) {
	s := schemaOf(reflect.TypeFor[File]())
	s.Version, s.Title = "https://json-schema.org/draft/2020-12/schema", "A crucible experiment"
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}

func schemaOf(t reflect.Type) *schema {
	scalar := []string{"string", "number", "boolean"}
	switch t {
	case reflect.TypeFor[Step]():
		return stepSchema()
	case reflect.TypeFor[Options]():
		return &schema{Type: "object", Additional: &schema{Type: append(scalar, "array")}}
	case reflect.TypeFor[Factors]():
		return &schema{Type: "object", Additional: &schema{Type: "array", Items: &schema{Type: scalar}}}
	case reflect.TypeFor[Values]():
		return &schema{Type: "object", Additional: &schema{Type: scalar}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(t.Elem())}
	case reflect.Struct:
		return structSchema(t)
	}
	return &schema{Type: scalar[:2]}
}

func structSchema(t reflect.Type) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		one := schemaOf(f.Type)
		one.Description = f.Tag.Get("doc")
		if enum := f.Tag.Get("enum"); enum != "" {
			one.Enum = strings.Split(enum, ",")
		}
		if rest == "" {
			s.Required = append(s.Required, name)
		}
		s.Properties[name] = one
	}
	return s
}

func stepSchema() *schema {
	choices := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false, Least: 1, Most: 2}
	for _, v := range Verbs() {
		choices.Properties[v.Name] = &schema{Description: v.What}
	}
	choices.Properties["where"] = schemaOf(reflect.TypeFor[Values]())
	return &schema{OneOf: []*schema{{Enum: verbNames()}, choices}}
}
