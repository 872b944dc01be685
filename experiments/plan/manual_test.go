package plan

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The manual's example is an experiment, and everything has its line.
func TestManual(t *testing.T) {
	if _, err := Parse("example", []byte(example), Flags{}); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	if err := WriteManual(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"workload.builtin.memory", "hold.at-most", "repetitions.until.within", "leave-running", "first-answer"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not in the manual", want)
		}
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if strings.HasPrefix(line, "  ") && strings.HasSuffix(line, "  ") {
			t.Errorf("nothing is said of %s", line)
		}
	}
}

// The schema that is published is what the code says.
func TestSchema(t *testing.T) {
	want, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../experiment.schema.json")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("experiments/experiment.schema.json is not what `crucible experiment schema` prints (%v)", err)
	}
}
