package criufile

import (
	"fmt"
	"io"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// Load reads all entries of a file into plain structs. A field with the tag
// `criu:"NAME"` gets the message's field of that name: an integer of any width
// (one that does not fit is an error), a bool, a string, []byte, a struct for a
// message, a string or an integer for an enum, a slice of these for a repeated
// field, a pointer to tell what is not there from what is 0. `criu:",extra"`
// gets the payload, `criu:",type"` the message's name. A tag that no message of
// the file has is an error, as is a raw file.
//
// A file that does not exist is an fs.ErrNotExist: CRIU leaves out empty files.
func Load[T any](path string) ([]T, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return LoadFile[T](f)
}

// LoadFile is Load for a file that is open.
func LoadFile[T any](f *File) ([]T, error) {
	if f.kind.Raw() {
		return nil, &Error{Problem: Raw, Path: f.path, Text: "has no entries: it is " + f.kind.Text}
	}
	p := &shared
	if err := p.check(f.kind, reflect.TypeFor[T]()); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	var all []T
	for {
		e, err := f.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, *new(T))
		v := reflect.ValueOf(&all[len(all)-1]).Elem()
		plan, err := p.planOnce(f.of, v.Type())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		plan.setSpecial(v, e)
		if err := plan.fill(v, e.Message, 0); err != nil {
			return nil, f.at(err)
		}
	}
}

// plan says into which fields of a struct those of a message go.
type plan struct {
	of          *message
	targets     []*target // by number
	extra, name []int     // index of the fields with these tags
}

type target struct {
	index []int
	field *field
	plan  *plan // of a message
}

type planKey struct {
	message string
	typ     reflect.Type
}

// planner makes each plan once.
type planner struct {
	mu    sync.Mutex
	plans map[planKey]*plan
	// checked are kinds of files, by their messages, whose fields the struct has.
	checked map[planKey]bool
}

// shared are the plans of all files: an image has as many of a kind as it has
// processes.
var shared planner

func (p *planner) planOnce(of *message, t reflect.Type) (*plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plans == nil {
		p.plans = map[planKey]*plan{}
	}
	made, err := p.plan(of, t)
	if err != nil {
		p.plans = nil // some are half made
	}
	return made, err
}

// Prepare does what Load does once for each kind of file and struct, a tenth of a
// millisecond, for who has the time before and not when it comes to reading. The
// kind is a file's name, "pstree".
func Prepare[T any](file string) error {
	k, ok := kindOf(func(k Kind) bool { return !k.Raw() && k.names(file) })
	if !ok {
		return fmt.Errorf("no file of CRIU's is called %s", file)
	}
	t := reflect.TypeFor[T]()
	if err := shared.check(k, t); err != nil {
		return err
	}
	of, err := messageNamed(k.message)
	if err == nil {
		_, err = shared.planOnce(of, t)
	}
	return err
}

// check tells whether every tag is a field of one of the kind's messages.
func (p *planner) check(k Kind, t reflect.Type) error {
	key := planKey{k.message, t}
	p.mu.Lock()
	known := p.checked[key]
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := checkTags(k, t); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checked == nil {
		p.checked = map[planKey]bool{}
	}
	p.checked[key] = true
	return nil
}

func checkTags(k Kind, t reflect.Type) error {
	of, err := messageNamed(k.message)
	if err != nil {
		return err
	}
	first, err := messageNamed(k.messageOf(1))
	if err != nil {
		return err
	}
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("criu")
		if tag == "" || tag[0] == ',' {
			continue
		}
		if of.byName[tag] == nil && first.byName[tag] == nil {
			return fmt.Errorf("%s has no field %q", of.name, tag)
		}
	}
	return nil
}

// plan makes the plan of a struct for a message.
func (p *planner) plan(of *message, t reflect.Type) (*plan, error) {
	key := planKey{of.name, t}
	if made := p.plans[key]; made != nil {
		return made, nil
	}
	made := &plan{of: of, targets: make([]*target, len(of.byNumber))}
	p.plans[key] = made // before its fields: a message can hold itself
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s: %v is no struct", of.name, t)
	}
	for _, sf := range reflect.VisibleFields(t) {
		tag := sf.Tag.Get("criu")
		switch tag {
		case "":
			continue
		case ",extra":
			made.extra = sf.Index
			continue
		case ",type":
			made.name = sf.Index
			continue
		}
		f := of.byName[tag]
		if f == nil {
			continue // of the first entry's message, or of the others'
		}
		to, err := p.target(f, sf)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", of.name, f.name, err)
		}
		if made.targets[f.number] != nil {
			return nil, fmt.Errorf("%s.%s: %v has two fields for it", of.name, f.name, t)
		}
		made.targets[f.number] = to
	}
	return made, nil
}

func (p *planner) target(f *field, sf reflect.StructField) (*target, error) {
	to := &target{index: sf.Index, field: f}
	t := sf.Type
	if f.repeated {
		if t.Kind() != reflect.Slice {
			return nil, fmt.Errorf("%v is no slice", t)
		}
		t = t.Elem()
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	fits := false
	switch f.kind {
	case kindMessage:
		var err error
		to.plan, err = p.plan(f.message, t)
		return to, err
	case kindString:
		fits = t.Kind() == reflect.String
	case kindBytes:
		fits = t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
	case kindBool:
		fits = t.Kind() == reflect.Bool
	case kindEnum:
		fits = t.Kind() == reflect.String || isInteger(t.Kind())
	default:
		fits = isInteger(t.Kind())
	}
	if !fits {
		return nil, fmt.Errorf("it cannot be a %v", t)
	}
	return to, nil
}

func isInteger(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Uint64 }

func (p *plan) setSpecial(v reflect.Value, e Entry) {
	if p.extra != nil {
		v.FieldByIndex(p.extra).SetBytes(e.Extra)
	}
	if p.name != nil {
		v.FieldByIndex(p.name).SetString(e.Type)
	}
}

// fill fills a struct from a message. Fields that it has no place for are passed over.
func (p *plan) fill(v reflect.Value, b []byte, level int) error {
	if level > maxDepth {
		return problem(Damaged, "messages lie more than %d deep in each other", maxDepth)
	}
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return problem(Damaged, "%s: %v", p.of.name, protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			return problem(Damaged, "%s: %v", p.of.name, protowire.ParseError(n))
		}
		if int(number) < len(p.targets) && p.targets[number] != nil {
			to := p.targets[number]
			if err := to.set(v.FieldByIndex(to.index), typ, b[:n], level); err != nil {
				return problem(Damaged, "%s.%s: %v", p.of.name, to.field.name, err)
			}
		}
		b = b[n:]
	}
	return nil
}

// set sets a field, or appends to it, from what follows a tag.
func (to *target) set(v reflect.Value, typ protowire.Type, b []byte, level int) error {
	f := to.field
	if f.repeated && typ == protowire.BytesType && f.kind.wire() != typ {
		packed, _ := protowire.ConsumeBytes(b)
		for len(packed) > 0 {
			n := protowire.ConsumeFieldValue(f.number, f.kind.wire(), packed)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if err := to.setOne(grow(v), packed[:n], level); err != nil {
				return err
			}
			packed = packed[n:]
		}
		return nil
	}
	if typ != f.kind.wire() {
		return fmt.Errorf("wire type %d", typ)
	}
	if f.repeated {
		v = grow(v)
	}
	return to.setOne(v, b, level)
}

// grow appends a value to a slice and returns it.
func grow(list reflect.Value) reflect.Value {
	list.Set(reflect.Append(list, reflect.Zero(list.Type().Elem())))
	return list.Index(list.Len() - 1)
}

func (to *target) setOne(v reflect.Value, b []byte, level int) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	f := to.field
	var u uint64
	switch f.kind.wire() {
	case protowire.BytesType:
		content, _ := protowire.ConsumeBytes(b)
		switch {
		case f.kind == kindMessage:
			return to.plan.fill(v, content, level+1)
		case v.Kind() == reflect.String:
			v.SetString(string(content))
		default:
			v.SetBytes(append([]byte{}, content...))
		}
		return nil
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(b)
		u = uint64(v)
	case protowire.Fixed64Type:
		u, _ = protowire.ConsumeFixed64(b)
	default:
		u, _ = protowire.ConsumeVarint(b)
	}
	return setNumber(v, f, u)
}

// setNumber sets an integer, a bool, or the name of an enum's value.
func setNumber(v reflect.Value, f *field, u uint64) error {
	signed := int64(u)
	switch f.kind {
	case kindInt32, kindEnum, kindSfixed32:
		signed = int64(int32(u))
	case kindSint32, kindSint64:
		signed = protowire.DecodeZigZag(u)
	case kindUint32:
		signed = int64(uint32(u))
	}
	switch k := v.Kind(); {
	case k == reflect.Bool:
		v.SetBool(u != 0)
	case k == reflect.String:
		name, known := f.enum.byNumber[int32(signed)]
		if !known {
			name = fmt.Sprint(signed)
		}
		v.SetString(name)
	case v.CanInt():
		if v.OverflowInt(signed) || signed < 0 && (f.kind == kindUint64 || f.kind == kindFixed64) {
			return fmt.Errorf("%d does not fit in %v", u, v.Type())
		}
		v.SetInt(signed)
	default:
		if signed < 0 && f.kind != kindUint64 && f.kind != kindFixed64 || v.OverflowUint(uint64(signed)) {
			return fmt.Errorf("%d does not fit in %v", signed, v.Type())
		}
		v.SetUint(uint64(signed))
	}
	return nil
}
