package plan

import (
	"encoding/json"

	"github.com/invopop/jsonschema"
)

// Schema is the JSON schema of an experiment file, for editors.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true}
	s := r.Reflect(&File{})
	s.ID, s.Title = "", "A crucible experiment"
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}
