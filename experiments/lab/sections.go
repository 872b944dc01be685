package lab

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Section is what a guest executed between two marks.
type Section struct {
	Mark         Mark
	Kernel, User uint64 // instructions, of all processes
	Blocks       []Block
}

// Block is a piece of the kernel's code that was executed from its start to its
// end, some times.
type Block struct {
	Address      uint64
	Instructions uint64 // of all the times
}

// ReadSections reads what the plug-in writes (its form is in plugin/count.c). A
// last section that is not complete yet is left out.
func ReadSections(r io.Reader) ([]Section, error) {
	var all []Section
	var s *Section
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return all, nil
		}
		fields := strings.Fields(line)
		switch {
		case err != nil:
		case s == nil:
			s, err = sectionHead(fields)
		case len(fields) == 1 && fields[0] == "end":
			err = s.check()
			all, s = append(all, *s), nil
		default:
			err = s.block(fields)
		}
		if err != nil {
			return nil, fmt.Errorf("read the counts: line %d: %w", n, err)
		}
	}
}

func sectionHead(fields []string) (*Section, error) {
	if len(fields) != 6 || fields[0] != "section" || fields[2] != "kernel" || fields[4] != "user" {
		return nil, fmt.Errorf("%q does not begin a section", strings.Join(fields, " "))
	}
	mark, err := strconv.ParseUint(fields[1], 10, 8)
	if err != nil {
		return nil, err
	}
	s := &Section{Mark: Mark(mark)}
	if s.Kernel, err = strconv.ParseUint(fields[3], 10, 64); err != nil {
		return nil, err
	}
	s.User, err = strconv.ParseUint(fields[5], 10, 64)
	return s, err
}

func (s *Section) block(fields []string) error {
	if len(fields) != 3 {
		return fmt.Errorf("%q is no block", strings.Join(fields, " "))
	}
	address, err := strconv.ParseUint(fields[0], 16, 64)
	if err != nil {
		return err
	}
	instructions, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return err
	}
	times, err := strconv.ParseUint(fields[2], 10, 64)
	if err != nil {
		return err
	}
	s.Blocks = append(s.Blocks, Block{address, instructions * times})
	return nil
}

func (s *Section) check() error {
	var sum uint64
	for _, b := range s.Blocks {
		sum += b.Instructions
	}
	if sum != s.Kernel {
		return fmt.Errorf("the blocks have %d instructions, the section %d", sum, s.Kernel)
	}
	return nil
}
