package restore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"crucible/checkpoint"
	"crucible/container/fingerprint"
	"crucible/container/network"
	"crucible/images"
	"crucible/proto/imagepb"
)

// check is what --verify does. The tasks must stand still, and nobody may hold
// them any more: so the group begins to freeze while CRIU traces them, and when
// CRIU lets go they come to a stop before they have executed an instruction of
// their own.
//
//	pre-resume    CRIU leaves the group, which is told to freeze; the link stays quiet
//	CRIU detaches, and ends
//	the group is frozen: fingerprint, comparison
//	link on, thaw, parked frames
type check struct {
	held     error // of holdBack: it could not be done
	verified *checkpoint.Verified
}

// holdBack is for CRIU's pre-resume. CRIU itself is in the group, and would
// freeze with it.
func (j *job) holdBack(criu int) error {
	if err := j.group.Release(criu); err != nil {
		return err
	}
	return j.group.BeginFreeze()
}

// verifyFrozen compares what was restored with what the image says, and lets it
// go on. That something differs is not an error, nor that it cannot be told.
func (j *job) verifyFrozen(ctx context.Context, init int) error {
	j.line.Step("compare fingerprints", true)
	v, err := j.compare(ctx, init)
	if err != nil {
		v = &checkpoint.Verified{Failed: err.Error()}
	}
	j.check.verified = v
	j.line.Step("adopt the tasks", false)
	err = j.activate(ctx)
	if j.check.held == nil {
		err = errors.Join(err, j.group.Thaw(ctx))
	}
	return err
}

func (j *job) compare(ctx context.Context, init int) (*checkpoint.Verified, error) {
	if j.check.held != nil {
		return nil, j.check.held
	}
	if _, err := j.group.Freeze(ctx, 0); err != nil {
		return nil, err
	}
	before, err := fingerprintOf(j.image)
	if err != nil {
		return nil, err
	}
	ns, err := j.m.NetNS()
	if err != nil {
		return nil, err
	}
	after, err := fingerprint.Take(ctx, fingerprint.Subject{Init: init, Group: j.group, NetNS: ns, Restored: true})
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	m := j.image.Manifest
	r, err2 := fingerprint.Compare(before, after, fingerprint.Circumstances{
		Elapsed:      time.Duration(m.DurationNs) + time.Since(j.line.Started),
		OtherName:    j.m.Container().Name != j.image.Name,
		OtherAddress: j.a.NewAddress, Moved: j.moved(),
		OtherBoot: err != nil || strings.TrimSpace(string(boot)) != m.GetWriter().GetBootId(),
		TCPClosed: j.a.TCPClose || m.Options["tcp-close"] == "true",
	})
	if err2 != nil {
		return nil, err2
	}
	return &checkpoint.Verified{Report: r}, nil
}

// moved are the old address and link address, and the new ones.
func (j *job) moved() map[string]string {
	now, saved := j.m.Container().State.Attachment, networkOf(&j.spaces)
	if !j.a.NewAddress || now == nil || saved.GetAttachment() == nil {
		return nil
	}
	old, err := network.ConfigFrom(saved.Attachment)
	if err != nil {
		return nil
	}
	return map[string]string{
		old.Address.Addr().String():    now.Address.Addr().String(),
		hex.EncodeToString(old.MAC[:]): hex.EncodeToString(now.MAC[:]),
	}
}

// hasFingerprint tells whether an image can be verified.
func hasFingerprint(i *images.Image) bool {
	return slices.ContainsFunc(i.Manifest.Files, func(f *imagepb.File) bool { return f.Path == images.Fingerprint })
}

func fingerprintOf(i *images.Image) (*fingerprint.Fingerprint, error) {
	var p imagepb.Fingerprint
	if err := i.Get(images.Fingerprint, &p); err != nil {
		return nil, err
	}
	f, err := fingerprint.FromProto(&p)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref(), err)
	}
	return f, nil
}

// NoFingerprintError: the image was made without --verify.
type NoFingerprintError struct{ Ref string }

func (e *NoFingerprintError) Error() string {
	return fmt.Sprintf("image %s: has no fingerprint to compare with", e.Ref)
}

// Hint says how to make one that has.
func (e *NoFingerprintError) Hint() string {
	name, _, _ := strings.Cut(e.Ref, "@")
	return "make the image with `crucible checkpoint --verify " + name + "`, or restore it without --verify"
}
