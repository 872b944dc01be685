package imagepb

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var registeredAtStart bool

func TestMain(m *testing.M) {
	registeredAtStart = File_crucible_image_manifest_proto != nil
	os.Exit(m.Run())
}

// The messages are registered by their first use, whichever that is.
func TestRegister(t *testing.T) {
	if registeredAtStart {
		t.Error("the messages are registered when the program starts")
	}
	if got := NamespaceKind_NAMESPACE_KIND_UTS.String(); got != "NAMESPACE_KIND_UTS" {
		t.Errorf("the enum's value prints as %q", got)
	}
	m := &Namespaces{Namespaces: []*Namespace{{Detail: &Namespace_Network{Network: &NetworkNamespace{Links: []*Link{{Name: "lo"}}}}}}}
	if got := m.String(); !strings.Contains(got, `name:"lo"`) {
		t.Errorf("the message prints as %q", got)
	}
	if File_crucible_image_manifest_proto == nil || File_crucible_image_timeline_proto == nil {
		t.Error("not all files are registered")
	}
}

// The generated code must be made from the .proto files as they are.
func TestGenerated(t *testing.T) {
	want, err := os.ReadFile("sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("../*.proto")
	if err != nil || len(paths) == 0 {
		t.Fatalf("find .proto files: %v, %v", paths, err)
	}
	var got strings.Builder
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%x  %s\n", sha256.Sum256(b), filepath.Base(path))
	}
	if got.String() != string(want) {
		t.Errorf("imagepb is older than the .proto files: run proto/generate.sh\nhave:\n%swant:\n%s", want, got.String())
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"naïve":        "naïve",
		"a\xffb":       `a\xffb`,
		"\xc3":         `\xc3`,
		"ok\x80\uFFFD": `ok\x80` + "\uFFFD",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}
