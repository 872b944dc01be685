package oci

import (
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A layout goes to a registry and comes back the same, by what crane does.
func TestRegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/images/web:3")
	if err != nil {
		t.Fatal(err)
	}
	image := only(t, write(t, "what is carried"))
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	back, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	m, err := back.Manifest()
	if err != nil || m.Annotations["org.criu.checkpoint.container.name"] != "web" {
		t.Errorf("%+v, %v", m, err)
	}
	pulled := filepath.Join(t.TempDir(), "pulled")
	path, err := layout.Write(pulled, empty.Index)
	if err == nil {
		err = path.AppendImage(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(pulled); err != nil || got != "what is carried" {
		t.Errorf("%q, %v", got, err)
	}
}

// only is the image of a layout, as others read it.
func only(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	image, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
