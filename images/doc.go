// Package images is the store of images: where a container's state lies once a
// checkpoint has written it, and where a restore finds it.
//
// # Words
//
// An image is a directory, <store>/<name>/<N>, that is written once. "web@3"
// names the third image of container web, "web" its newest; the number is one
// more than the highest that is there. A draft is an image that is still being
// written; it lies in <store>/.drafts, where nobody takes it for an image.
//
//	store := images.Store{Dir: root.Images()}
//	draft, err := store.Draft(ctx, "web")
//	defer draft.Discard()               // after a commit: nothing
//	draft.Follow()                      // digest CRIU's pages as they come
//	... CRIU writes to draft.CRIUDir()
//	err = draft.Put(images.Mounts, mounts)
//	image, err := draft.Commit(ctx, &imagepb.Manifest{...})
//
//	image, err = store.Open("web")
//	go func() { verified <- image.Verify(ctx, images.VerifyOptions{}) }()
//
// # All or nothing
//
// A commit digests every file, makes it read-only, writes the manifest and
// renames the draft's directory. Before the rename there is no image, after it
// the image is whole; two commits at once get two numbers (a lock, held while
// the manifest is written). Directories stay writable: they are the owner's
// alone (an image is the memory of processes), who must be able to remove
// them, and the manifest names every file, so that Verify sees what was added
// or taken away.
//
// A draft is locked (flock(2)) by who writes it, so a killed command's draft
// is unlocked, and the next Draft, Open or Remove deletes it.
//
// # Chains
//
// An incremental image holds the memory that has changed since its parent, which
// holds the rest, or builds on another one itself. Parent and child belong to the
// same container, and so lie beside each other; the child's manifest has the
// digest of its parent's. Nothing of that is changed afterwards: a parent cannot
// be removed before its children are, and Verify looks at the whole chain.
//
//	link, err := draft.BuildOn(parent)   // for CRIU: ../../1/criu
//	...
//	chain, err := image.Chain()          // the image, its parent, and so on
//
// # Edited images
//
// An image can be made from another one with something in it changed (package
// images/edit): a draft takes the other's files (Draft.Take) but for those that it
// writes anew. What is the same is on the disk once, by hard links, since nothing
// of an image is ever changed; neither needs the other. Manifest.edited_from names
// the other.
//
// # Editions
//
// The format has an edition, and an image says which one a reader must know to
// restore it rightly (Manifest.min_reader): the rules are at the head of
// proto/manifest.proto. Open refuses an image that needs a newer one. Of others
// that a newer crucible wrote, Unknown names the fields and files that are not
// known here. testdata has an image of each edition for ever.
//
// An image that comes from elsewhere keeps its manifest, byte for byte, so that
// its children know it: see Draft.Adopt, and package images/archive.
//
// # Power cuts
//
// A commit does not wait for the disk, unless Store.Sync is set: to write
// 1 GiB takes seconds, in which the container would be stopped. A power cut
// shortly after a commit can leave an image with empty files. It is never
// taken for a good one: Open and Verify call it damaged. The container itself
// would not have lived through that power cut, either. Set Sync where the
// image is the last copy and its source is going to be given up on purpose.
//
// # What it does not do
//
// It knows nothing of how an image came about or what is done with it; what
// the files mean is in the .proto files, and what is in filesystem/ in package
// images/filesystem. Digests find accidents and tell images apart; they do not
// say who made them.
package images
