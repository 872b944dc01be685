package lab

// Mark names a section of what a guest executes: see Between.
type Mark int

// The marks. Zero ends a section.
const (
	MarkCheckpoint Mark = 1
	MarkRestore    Mark = 2
)

// Between has the plug-in of a machine that counts (see Count) count what its
// guest executes while f runs, in whatever process. Elsewhere it just calls f.
func Between(m Mark, f func() error) error {
	switch m {
	case MarkCheckpoint:
		markCheckpoint()
	case MarkRestore:
		markRestore()
	}
	defer markEnd()
	return f()
}
