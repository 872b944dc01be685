package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The types of what is in a layout.
const (
	ArtifactType = "application/vnd.crucible.image.v1"
	LayerType    = "application/vnd.oci.image.layer.v1.tar+zstd"

	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	emptyType    = "application/vnd.oci.empty.v1+json"
)

// Names of the files of a layout.
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	blobs      = "blobs/sha256"
)

// Description is what the annotations say of an image.
type Description struct {
	Name      string // NAME@N
	Container string
	Crucible  string // versions
	CRIU      string
	Kernel    string // release
	Machine   string // as uname(2) says
	Created   time.Time
}

// annotations by their keys: github.com/checkpoint-restore/checkpointctl/lib, and
// annotations.md of the image-spec.
func (d Description) annotations() map[string]string {
	all := map[string]string{
		"org.opencontainers.image.created":     d.Created.UTC().Format(time.RFC3339),
		"org.criu.checkpoint.container.name":   d.Container,
		"org.criu.checkpoint.engine.name":      "crucible",
		"org.criu.checkpoint.engine.version":   d.Crucible,
		"org.criu.checkpoint.criu.version":     d.CRIU,
		"org.criu.checkpoint.host.kernel":      d.Kernel,
		"org.criu.checkpoint.host.arch":        d.Machine,
		"org.opencontainers.image.description": "crucible image " + d.Name,
	}
	for k, v := range all {
		if v == "" {
			delete(all, k)
		}
	}
	return all
}

// descriptor of the image-spec.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// Write makes a layout in a new directory; layer writes what is carried. After an
// error nothing of it is left.
func Write(dir string, d Description, layer func(io.Writer) error) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("write OCI layout: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write OCI layout %s: %w", dir, err), os.RemoveAll(dir))
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, blobs), 0o755); err != nil {
		return err
	}
	l, err := writeBlob(dir, layer)
	if err != nil {
		return err
	}
	l.MediaType = LayerType
	empty, err := writeBlob(dir, func(w io.Writer) error { _, err := io.WriteString(w, "{}"); return err })
	if err != nil {
		return err
	}
	empty.MediaType = emptyType
	m, err := writeBlob(dir, jsonOf(manifest{2, manifestType, ArtifactType, empty, []descriptor{l}, d.annotations()}))
	if err != nil {
		return err
	}
	m.MediaType, m.ArtifactType = manifestType, ArtifactType
	// A tag has no "@".
	m.Annotations = map[string]string{"org.opencontainers.image.ref.name": strings.ReplaceAll(d.Name, "@", "-")}
	if err := writeFile(filepath.Join(dir, indexFile), jsonOf(index{2, indexType, []descriptor{m}})); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, layoutFile), jsonOf(map[string]string{"imageLayoutVersion": "1.0.0"}))
}

func jsonOf(v any) func(io.Writer) error {
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(v) }
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// writeBlob writes a blob and names it by its digest.
func writeBlob(dir string, write func(io.Writer) error) (d descriptor, err error) {
	draft := filepath.Join(dir, blobs, "draft")
	h := sha256.New()
	count := &counter{}
	if err := writeFile(draft, func(w io.Writer) error { return write(io.MultiWriter(w, h, count)) }); err != nil {
		return d, err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	return descriptor{Digest: "sha256:" + sum, Size: count.n}, os.Rename(draft, filepath.Join(dir, blobs, sum))
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// Error is a directory that is no layout of ours, or a damaged one.
type Error struct{ Dir, Why string }

func (e *Error) Error() string { return fmt.Sprintf("OCI layout %s: %s", e.Dir, e.Why) }

// Hint says what to do about it.
func (e *Error) Hint() string {
	return "name a directory that `crucible image export --oci` made, or into which its copy was pulled"
}

// Is tells whether a directory is an OCI layout.
func Is(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, layoutFile))
	return err == nil
}

// Open finds the layer of the only image in a layout. The manifest is compared with
// its digest at once; the layer is while it is read: what is not as it was is an
// [Error] in place of the end of the file.
func Open(dir string) (io.ReadCloser, error) {
	var i index
	data, err := readSmall(filepath.Join(dir, indexFile))
	if err == nil {
		err = json.Unmarshal(data, &i)
	}
	if err != nil {
		return nil, &Error{dir, indexFile + ": " + plain(err)}
	}
	var ours []descriptor
	for _, d := range i.Manifests {
		if d.ArtifactType == ArtifactType || d.ArtifactType == "" {
			ours = append(ours, d)
		}
	}
	if len(ours) != 1 {
		return nil, &Error{dir, fmt.Sprintf("%d images of crucible's are in it, expected one", len(ours))}
	}
	m, err := readManifest(dir, ours[0])
	if err != nil {
		return nil, err
	}
	layer := m.Layers[0]
	path, err := blobPath(dir, layer.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{dir, "layer: " + plain(err)}
	}
	return &checked{f: f, dir: dir, want: layer, hash: sha256.New()}, nil
}

func readManifest(dir string, d descriptor) (*manifest, error) {
	path, err := blobPath(dir, d.Digest)
	if err != nil {
		return nil, err
	}
	data, err := readSmall(path)
	if err != nil {
		return nil, &Error{dir, "manifest: " + plain(err)}
	}
	if sum := sha256.Sum256(data); "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
		return nil, &Error{dir, "the manifest is not what its digest says"}
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, &Error{dir, "manifest: " + err.Error()}
	}
	if m.ArtifactType != ArtifactType || len(m.Layers) != 1 || m.Layers[0].MediaType != LayerType {
		return nil, &Error{dir, "it holds something else than an image of crucible's"}
	}
	return &m, nil
}

// blobPath refuses a digest that would lead elsewhere.
func blobPath(dir, digest string) (string, error) {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size {
		return "", &Error{dir, fmt.Sprintf("%q is no digest", digest)}
	}
	return filepath.Join(dir, blobs, sum), nil
}

// smallLimit is how long a JSON file of a layout may be, in bytes: image-spec's
// advice for manifests.
const smallLimit = 4 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, smallLimit+1))
	if err == nil && len(data) > smallLimit {
		err = errors.New("too long")
	}
	return data, err
}

func plain(err error) string {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// checked is a layer that is compared with its digest at its end.
type checked struct {
	f    *os.File
	dir  string
	want descriptor
	hash hash.Hash
	read int64
}

func (c *checked) Read(b []byte) (int, error) {
	n, err := c.f.Read(b)
	c.hash.Write(b[:n])
	if c.read += int64(n); c.read > c.want.Size {
		return 0, &Error{c.dir, "the layer is longer than it was"}
	}
	if err == io.EOF && "sha256:"+hex.EncodeToString(c.hash.Sum(nil)) != c.want.Digest {
		return n, &Error{c.dir, "the layer is not what its digest says"}
	}
	return n, err
}

func (c *checked) Close() error { return c.f.Close() }
