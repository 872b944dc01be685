package inspect

import (
	"bytes"
	"os"
	"testing"

	"crucible/images/inspect/criufile"
)

// FuzzFiles: no bytes in the place of files.img make it panic.
func FuzzFiles(f *testing.F) {
	b, err := os.ReadFile("criufile/testdata/zoo/files.img")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	i := zoo(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := criufile.NewFile(bytes.NewReader(b), int64(len(b)), "files.img")
		if err != nil {
			return
		}
		entries, err := criufile.LoadFile[fileEntry](file)
		if err != nil {
			return
		}
		r := &reader{i}
		tables, err := r.fileTables()
		if err != nil {
			t.Fatal(err)
		}
		c := &Contents{}
		for _, e := range entries {
			one := &File{ID: e.ID, Kind: kindName(e.Type), Holders: []Holder{{1, int(e.ID)}}}
			tables.describe(one, &e)
			c.Files = append(c.Files, one)
		}
		c.linkPipes()
		if err := r.linkSockets(c); err != nil {
			t.Fatal(err)
		}
		c.linkEpolls()
		for _, one := range c.Files {
			_ = one.Name()
		}
	})
}
