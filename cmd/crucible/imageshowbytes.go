package main

import (
	"fmt"
	"io"
	"path"

	"crucible/images"
	"crucible/images/inspect/criufile"
	"crucible/proto/imagepb"
)

// part is what the bytes of an image are for, in `crucible image show`.
type part struct {
	Kind  string `json:"kind"`
	Files int    `json:"files"`
	Size  int64  `json:"size"` // bytes
}

// parts sorts the files of an image by what they hold, the largest kind first
// where it usually is.
func parts(files []*imagepb.File) []part {
	all := []part{{Kind: "memory"}, {Kind: "changed files"}, {Kind: "state of processes and kernel"}, {Kind: "logs"}, {Kind: "crucible's records"}}
	for _, f := range files {
		n := 4
		switch dir, name := path.Split(f.Path); {
		case dir == images.CRIU+"/" && criufile.IsPages(name):
			n = 0
		case dir == images.Archives+"/":
			n = 1
		case path.Ext(name) == ".log":
			n = 3
		case dir == images.CRIU+"/":
			n = 2
		}
		all[n].Files++
		all[n].Size += int64(f.Size)
	}
	return all
}

func (s *shown) partTable(w io.Writer) {
	total := s.image.Size()
	if total == 0 {
		return
	}
	fmt.Fprintln(w, "\nWHERE THE BYTES WENT\tSIZE\tSHARE\tFILES")
	for _, p := range parts(s.image.Manifest.Files) {
		if p.Files > 0 {
			fmt.Fprintf(w, "%s\t%s\t%.1f %%\t%d\n", p.Kind, formatSize(p.Size), 100*float64(p.Size)/float64(total), p.Files)
		}
	}
}
