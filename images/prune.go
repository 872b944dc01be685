package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"crucible/images/pack"
)

// PruneOptions say what may go. With the zero value no image does: only what no
// image needs.
type PruneOptions struct {
	// Name limits the removal of images to one container's.
	Name string
	// Keep is how many images of each container stay, the newest; 0: all.
	Keep int
	// Needed names images that stay for another reason, and says which; nil: none.
	Needed func(ref string) (why string)
	// DryRun only says what would be done.
	DryRun bool
	// Workers is how many processors to use; 0: all.
	Workers int
}

// Pruned says what a Prune has done.
type Pruned struct {
	// Images that are gone, and those that only had to stay, although there are
	// enough newer ones.
	Images []PrunedImage
	Kept   []PrunedImage
	// Packs that are gone: all of them, or because their pages are in a new one.
	Packs, Rewritten int
	// Freed are the bytes on disk.
	Freed int64
}

// PrunedImage is an image that a Prune has removed, or why it has not.
type PrunedImage struct {
	Ref   string
	Bytes int64 // of its own files
	Why   string
}

// Prune removes old images, and then what no image needs: packs, pages in packs
// that are mostly unused, and what killed commands have left. A kill at any point
// loses nothing. The error joins what went wrong; the rest is done all the same.
func (s Store) Prune(ctx context.Context, o PruneOptions) (*Pruned, error) {
	p := &pruning{s: s, o: o, gone: map[string]bool{}, out: &Pruned{}}
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return p.out, nil
	}
	s.sweep()
	var errs []error
	if o.Keep > 0 {
		errs = append(errs, p.images(ctx))
	}
	if ctx.Err() == nil {
		errs = append(errs, p.leftovers(ctx))
	}
	if ctx.Err() == nil {
		errs = append(errs, p.packs(ctx))
	}
	return p.out, errors.Join(append(errs, ctx.Err())...)
}

// pruning is a Prune under way.
type pruning struct {
	s    Store
	o    PruneOptions
	out  *Pruned
	gone map[string]bool // images that are removed, or would be
}

// images removes images that are too many.
func (p *pruning) images(ctx context.Context) error {
	names := []string{p.o.Name}
	if p.o.Name == "" {
		var err error
		if names, err = p.s.Names(); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range names {
		all, err := p.s.List(name)
		errs = append(errs, err)
		stay := p.stay(all)
		for _, i := range slices.Backward(all) { // children before their parents
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
			one := PrunedImage{Ref: i.Ref(), Bytes: sizeOnDisk(i.Dir())}
			why, stays := stay[i.Number]
			if !stays {
				if why, err = p.remove(ctx, i); err != nil {
					errs = append(errs, err)
					continue
				}
			}
			if one.Why = why; !stays && why == "" {
				p.out.Images = append(p.out.Images, one)
				p.out.Freed += one.Bytes
				p.gone[i.Ref()] = true
			} else if why != "" {
				p.out.Kept = append(p.out.Kept, one)
			}
		}
	}
	slices.Reverse(p.out.Images)
	slices.Reverse(p.out.Kept)
	return errors.Join(errs...)
}

// stay are the images of a container that stay, and why if it is not for being
// new. Of a pre-dump one cannot come back: it does not count, but the newest are
// what the next image builds on.
func (p *pruning) stay(all []*Image) map[int]string {
	stay := map[int]string{}
	count := 0
	for _, i := range slices.Backward(all) {
		if count < p.o.Keep {
			stay[i.Number] = ""
		} else if p.o.Needed != nil {
			if why := p.o.Needed(i.Ref()); why != "" {
				stay[i.Number] = why
			}
		}
		if !i.Manifest.GetTraits().GetPreDump() {
			count++
		}
	}
	for _, i := range slices.Backward(all) {
		parent := i.parent().Number
		_, stays := stay[i.Number]
		if _, already := stay[parent]; stays && parent > 0 && !already {
			stay[parent] = i.Ref() + " builds on it"
		}
	}
	return stay
}

// remove removes one image, or says why it cannot.
func (p *pruning) remove(ctx context.Context, i *Image) (why string, err error) {
	if !p.o.DryRun {
		err = p.s.Remove(ctx, i.Ref())
	} else if why := p.inUse(i); why != "" {
		return why, nil
	}
	var known *Error
	if errors.As(err, &known) && known.Kind == InUse {
		return known.Text, nil
	}
	if errors.Is(err, NotFound) { // somebody else was faster
		return "is gone already", nil
	}
	return "", err
}

// inUse says why an image could not be removed.
func (p *pruning) inUse(i *Image) (why string) {
	for _, child := range i.Children() {
		if !p.gone[child] {
			return child + " builds on it"
		}
	}
	f, err := i.Open(Manifest)
	if err != nil {
		return ""
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return "a command is reading it"
	}
	return ""
}

// leftovers finishes what a Pack that was killed, or found a reader, has begun.
func (p *pruning) leftovers(ctx context.Context) error {
	all, _ := p.s.List("") // what cannot be read is none of ours
	var errs []error
	for _, i := range all {
		var both, size int64
		for _, f := range i.Manifest.Files {
			if info, err := os.Stat(filepath.Join(i.Dir(), f.Path)); IsPages(f.Path) && err == nil {
				if _, err := os.Stat(filepath.Join(i.Dir(), indexOf(f.Path))); err == nil {
					both, size = both+1, size+info.Size()
				}
			}
		}
		if both == 0 || p.gone[i.Ref()] {
			continue
		}
		if !p.o.DryRun {
			_, err := i.Pack(ctx, PackOptions{Workers: p.o.Workers})
			if errors.Is(err, InUse) || errors.Is(err, NotFound) {
				continue
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.out.Freed += size
	}
	return errors.Join(errs...)
}

// packs removes what no index refers to. Until it ends nobody adds anything.
func (p *pruning) packs(ctx context.Context) error {
	dir := p.s.packs()
	if _, err := os.Stat(string(dir)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := p.s.lockPacks(ctx, unix.LOCK_EX)
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	defer unlock()
	for _, path := range dir.Left() {
		p.out.Freed += fileSize(path)
		if !p.o.DryRun {
			_ = os.Remove(path)
		}
	}
	var live pack.Live
	skip := p.gone
	if !p.o.DryRun {
		skip = nil // numbers are given again
	}
	if err := p.s.eachIndex(skip, func(_ indexFile, x *pack.Index) error { live.Mark(x); return nil }); err != nil {
		return fmt.Errorf("prune images: nothing of what is packed can be removed: %w", err)
	}
	ids, err := dir.List()
	if err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	var errs []error
	var sparse []pack.ID
	for _, id := range ids {
		if !live.Has(id) {
			p.out.Packs++
			errs = append(errs, p.drop(id))
			continue
		}
		used, pages, _, err := live.Fill(dir, id)
		if err != nil { // it stays, for what can still be read in it
			errs = append(errs, fmt.Errorf("prune images: pack %w; `crucible image verify` names the images that need it", err))
		} else if used*2 < pages {
			sparse = append(sparse, id)
		}
	}
	if len(sparse) > 0 {
		errs = append(errs, p.rewrite(ctx, &live, sparse))
	}
	return errors.Join(errs...)
}

// drop removes a pack.
func (p *pruning) drop(id pack.ID) error {
	size := fileSize(p.s.packs().Path(id))
	if !p.o.DryRun {
		if err := p.s.packs().Remove(id); err != nil {
			return fmt.Errorf("prune images: %w", err)
		}
	}
	p.out.Freed += size
	return nil
}

// rewrite copies what is used of some packs to a new one, has all indexes refer to
// that, and removes the old ones: in this order.
func (p *pruning) rewrite(ctx context.Context, live *pack.Live, ids []pack.ID) error {
	p.out.Rewritten = len(ids)
	if p.o.DryRun {
		for _, id := range ids {
			used, pages, size, _ := live.Fill(p.s.packs(), id)
			p.out.Freed += size * int64(pages-used) / int64(max(1, pages))
		}
		return nil
	}
	moved, err := p.s.packs().Copy(ctx, live, ids, pack.Options{Workers: p.o.Workers})
	if err == nil {
		p.out.Freed -= moved.Bytes
		err = p.s.eachIndex(nil, func(f indexFile, x *pack.Index) error {
			y := x.Move(moved)
			if y == nil {
				return nil
			}
			_, err := f.image.putIndex(f.pages, y)
			if errors.Is(err, os.ErrNotExist) {
				return nil // the image has been removed meanwhile
			}
			return err
		})
	}
	if err != nil {
		p.out.Rewritten = 0
		return fmt.Errorf("prune images: rewrite packs: %w", noSpaceFor(p.s.Dir, "what is used of some packs is copied before they are removed", err))
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, p.drop(id))
	}
	return errors.Join(errs...)
}
