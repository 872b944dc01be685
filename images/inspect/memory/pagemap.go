package memory

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Magic numbers, the first 8 bytes of a file (criu/include/magic.h).
const (
	commonMagic  = 0x54564319
	pagemapMagic = 0x56084025
)

// Flags of an entry (criu/include/pagemap.h).
const (
	inParent = 1 << 0 // PE_PARENT
	lazy     = 1 << 1 // PE_LAZY: may be sent after the restore
	present  = 1 << 2 // PE_PRESENT

	knownFlags = inParent | lazy | present
)

// maxAddr is above every address that a process can have: the largest user
// space is that of 57 bits (arch/x86/include/asm/page_64_types.h).
const maxAddr = 1 << 57

// entry is a pagemap_entry of images/pagemap.proto.
type entry struct {
	addr, pages uint64
	flags       uint64
}

// parsePagemap reads a pagemap-*.img. The entries are in order, do not overlap
// and lie on the bounds of pages; that the pages are there is not looked at.
func parsePagemap(b []byte, pageSize uint64) (pagesID uint64, entries []entry, err error) {
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != commonMagic || binary.LittleEndian.Uint32(b[4:]) != pagemapMagic {
		return 0, nil, errors.New("is no pagemap: it does not begin like one")
	}
	whole := len(b)
	head, b, err := message(b[8:])
	if err != nil {
		return 0, nil, fmt.Errorf("%w at byte 8", err)
	}
	if pagesID, err = parseHead(head); err != nil {
		return 0, nil, err
	}
	end := uint64(0)
	for len(b) > 0 {
		at := whole - len(b)
		var m []byte
		if m, b, err = message(b); err != nil {
			return 0, nil, fmt.Errorf("%w at byte %d", err, at)
		}
		e, err := parseEntry(m)
		switch {
		case err != nil:
		case e.addr%pageSize != 0:
			err = fmt.Errorf("has an address, %x, within a page of %d bytes", e.addr, pageSize)
		case e.addr >= maxAddr || e.pages > (maxAddr-e.addr)/pageSize:
			err = fmt.Errorf("has %d pages at %x, more than there are addresses", e.pages, e.addr)
		case e.addr < end:
			err = fmt.Errorf("has pages at %x, behind those that end at %x", e.addr, end)
		}
		if err != nil {
			return 0, nil, fmt.Errorf("%w (entry at byte %d)", err, at)
		}
		if end = e.addr + e.pages*pageSize; e.pages > 0 {
			entries = append(entries, e)
		}
	}
	return pagesID, entries, nil
}

// message cuts the first message off: its length, 32 bits, is before it.
func message(b []byte) (m, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errors.New("is cut off")
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n > uint64(len(b)-4) {
		return nil, nil, errors.New("is cut off")
	}
	return b[4 : 4+n], b[4+n:], nil
}

// parseHead reads a pagemap_head: 1 is pages_id.
func parseHead(m []byte) (id uint64, err error) {
	found := false
	err = varints(m, func(number protowire.Number, v uint64) bool {
		id, found = v, number == 1
		return found
	})
	if err == nil && !found {
		err = errors.New("does not say where the pages are")
	}
	return id, err
}

// parseEntry reads a pagemap_entry. CRIU 4.2 moved the number of pages from
// field 2, 32 bits, to field 5, and writes 0 to the old one. An unknown field
// would mean that the pages lie in another way (a later CRIU can compress
// them): to go on would be to read wrong bytes.
func parseEntry(m []byte) (e entry, err error) {
	var compat uint64
	var counted, flagged bool
	err = varints(m, func(number protowire.Number, v uint64) bool {
		switch number {
		case 1:
			e.addr = v
		case 2:
			compat = v
		case 3:
			if v != 0 {
				e.flags |= inParent
			}
		case 4:
			e.flags |= v
			flagged = true
		case 5:
			e.pages, counted = v, true
		default:
			return false
		}
		return true
	})
	if !counted {
		e.pages = compat
	}
	// criu/pagemap.c: init_compat_pagemap_entry.
	if !flagged && e.flags == 0 {
		e.flags = present
	}
	if err == nil && e.flags&^knownFlags != 0 {
		err = fmt.Errorf("has the flags %x, which this crucible does not know", e.flags)
	}
	return e, err
}

// varints calls do for each field of a message that has numbers only.
func varints(m []byte, do func(protowire.Number, uint64) bool) error {
	for len(m) > 0 {
		number, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return errors.New("is damaged")
		}
		m = m[n:]
		known := false
		if kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(m)
			if n < 0 {
				return errors.New("is damaged")
			}
			m, known = m[n:], do(number, v)
		}
		if !known {
			return fmt.Errorf("has a field, %d, that this crucible does not know", number)
		}
	}
	return nil
}
