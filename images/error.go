package images

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"crucible/proto/frame"
)

// Kind is what is wrong with an image. It is an error itself, so that
// errors.Is(err, images.NotFound) asks for it.
type Kind string

const (
	// NotFound: there is no such image.
	NotFound Kind = "not found"
	// Damaged: bytes or files are missing, changed or added.
	Damaged Kind = "damaged"
	// Foreign: it is something else than an image.
	Foreign Kind = "foreign"
	// NewerFormat: a newer crucible wrote it, and this one would misread it.
	NewerFormat Kind = "newer format"
	// OtherArch: it was written on another kind of machine.
	OtherArch Kind = "other architecture"
	// InUse: a command is restoring from it, or another image builds on it.
	InUse Kind = "in use"
	// PreDump: it holds memory only, for other images to build on.
	PreDump Kind = "of a pre-dump"
)

func (k Kind) Error() string { return "image is " + string(k) }

// Error says which image, what is wrong with it, and what to do.
type Error struct {
	Kind Kind
	// Ref is "name@N", or what the user asked for.
	Ref string
	// File of the image, or "" if it is not about one.
	File string
	// Text continues a sentence about the image or the file.
	Text string
	// Advice is what the user can do, in one line.
	Advice string
}

func (e *Error) Error() string {
	if e.File == "" {
		return fmt.Sprintf("image %s: %s", e.Ref, e.Text)
	}
	return fmt.Sprintf("image %s: %s %s", e.Ref, e.File, e.Text)
}

// Is tells errors.Is that the error is of its kind.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Advice }

func (i *Image) damaged(file, text string) *Error {
	return &Error{Kind: Damaged, Ref: i.Ref(), File: file, Text: text,
		Advice: "it cannot be relied upon: take another image (`crucible image list " + i.Name + "`), or a copy of this one"}
}

// unreadable turns what frame says about a file into an error about the image.
func (i *Image) unreadable(file string, err error) error {
	var fe *frame.Error
	switch {
	case !errors.As(err, &fe):
		return fmt.Errorf("image %s: %w", i.Ref(), err)
	case fe.Problem == frame.Newer:
		return &Error{Kind: NewerFormat, Ref: i.Ref(), File: file, Text: fe.Text,
			Advice: "use the crucible that wrote it, or a newer one"}
	case fe.Problem == frame.Foreign:
		return &Error{Kind: Foreign, Ref: i.Ref(), File: file, Text: fe.Text,
			Advice: "this is no image of crucible's: was the right directory copied?"}
	}
	return i.damaged(file, fe.Text)
}

// NoSpaceError is a full disk, or a quota, while an image was written.
type NoSpaceError struct {
	Dir string
	// Needs says how much room is needed.
	Needs string
	Err   error
}

func (e *NoSpaceError) Error() string { return e.Err.Error() }
func (e *NoSpaceError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *NoSpaceError) Hint() string {
	var s unix.Statfs_t
	free := ""
	if err := unix.Statfs(e.Dir, &s); err == nil {
		free = fmt.Sprintf(" (%d MiB free now)", s.Bavail*uint64(s.Bsize)>>20)
	}
	return "make room in " + e.Dir + free + ", for example with `crucible image rm`, or choose another --root; " + e.Needs
}

// noSpace marks an error that comes from a full disk.
func noSpace(dir string, err error) error {
	return noSpaceFor(dir, "the container needs about its memory's size", err)
}

// noSpaceFor is noSpace where something else is needed.
func noSpaceFor(dir, needs string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &NoSpaceError{Dir: dir, Needs: needs, Err: err}
	}
	return err
}
