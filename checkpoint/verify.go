package checkpoint

import (
	"context"
	"time"

	"crucible/container/fingerprint"
	"crucible/images"
)

// Verified is what --verify found: of a checkpoint that leaves the container
// running, or of a restore.
type Verified struct {
	*fingerprint.Report // nil: there was nothing to compare with
	// Facts of the fingerprint that was taken, where none was compared.
	Taken int `json:"taken,omitempty"`
	// Why it could not be compared.
	Failed string `json:"failed,omitempty"`
}

// takeFingerprint writes down what the kernel shows, before CRIU has hold of the
// tasks, and puts it into the image.
func (d *dump) takeFingerprint(ctx context.Context) error {
	d.line.Step("fingerprint", true)
	d.takenAt = time.Now()
	var err error
	if d.fingerprint, err = fingerprint.Take(ctx, d.subject()); err != nil {
		return err
	}
	d.verified = &Verified{Taken: len(d.fingerprint.Facts)}
	return d.draft.Put(images.Fingerprint, d.fingerprint.Proto())
}

func (d *dump) subject() fingerprint.Subject {
	return fingerprint.Subject{Init: d.c.State.Init.Pid, Group: d.group, NetNS: d.ns}
}

// compareFingerprint takes another one when CRIU has let go of the tasks, which
// stand still yet: what differs was done by the checkpoint itself.
func (d *dump) compareFingerprint(ctx context.Context) error {
	if d.fingerprint == nil {
		return nil
	}
	d.line.Step("compare fingerprints", true)
	// Where CRIU has let the tasks go they are on their way into the freezer.
	if _, err := d.group.Freeze(ctx, d.o.Timeout); err != nil {
		return err
	}
	after, err := fingerprint.Take(ctx, d.subject())
	if err != nil {
		return err
	}
	r, err := fingerprint.Compare(d.fingerprint, after, fingerprint.Circumstances{Elapsed: time.Since(d.takenAt)})
	d.verified = &Verified{Report: r}
	return err
}
