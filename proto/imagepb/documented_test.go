package imagepb_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every field of every message is explained: by a comment above it, or above the
// fields that stand together with it.
func TestFieldsAreDocumented(t *testing.T) {
	files, err := filepath.Glob("../*.proto")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	field := regexp.MustCompile(`^\s+(repeated |map<)?[\w<>, .]+ \w+ = \d+;`)
	fields := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		explained := false
		message := ""
		for _, line := range strings.Split(string(data), "\n") {
			text := strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(text, "//"):
				explained = true
			case strings.HasPrefix(text, "message ") || strings.HasPrefix(text, "enum "):
				if message = strings.Fields(text)[1]; !explained {
					t.Errorf("%s: %s is not explained", file, message)
				}
				explained = false // of its fields
			case text == "" || text == "}":
				explained = false
			case field.MatchString(line):
				if fields++; !explained && !selfEvident(message) {
					t.Errorf("%s: %s: %s", file, message, text)
				}
			}
		}
	}
	if fields < 200 {
		t.Errorf("%d fields", fields)
	}
}

// selfEvident are messages whose own comment explains all fields.
func selfEvident(message string) bool {
	switch message {
	case "IDs", "IDRange", "ClockOffset", "Processes", "Mounts", "Namespaces", "Filesystem":
		return true
	}
	return false
}
