package doc

import "slices"

// document is a shadow's state; a section that is nil does not exist, which is
// not the same as an empty one.
type document struct {
	desired, reported *value
}

// merge applies the state of an update.
func (d *document) merge(u *Update) {
	if u.clear {
		d.desired, d.reported = nil, nil
		return
	}
	for i := range u.state.kids {
		patch := &u.state.kids[i]
		section := &d.reported
		if patch.key == "desired" {
			section = &d.desired
		}
		switch {
		case patch.kind == null:
			*section = nil
		case *section == nil || u.replace:
			if v, some := withoutNulls(patch); some {
				*section = &v
			}
		default:
			mergeObject(*section, patch)
		}
	}
}

// mergeObject applies patch to base, both objects. What base takes over from
// patch it shares with it.
func mergeObject(base, patch *value) {
	f := find(base.kids, len(patch.kids))
	removed := 0
	for i := range patch.kids {
		p := &patch.kids[i]
		j := f.index(p.key)
		switch {
		case p.kind == null:
			if j >= 0 && base.kids[j].kind != null {
				base.kids[j].kind = null // marked; swept below
				removed++
			}
		case j < 0:
			if v, some := withoutNulls(p); some {
				base.kids = append(base.kids, v)
			}
		case p.kind == object && base.kids[j].kind == object:
			mergeObject(&base.kids[j], p)
		default:
			base.kids[j], _ = withoutNulls(p)
		}
	}
	if removed > 0 {
		base.kids = slices.DeleteFunc(base.kids, func(v value) bool { return v.kind == null })
	}
}

// withoutNulls returns v as it enters a document. some is false for an object
// in which nothing but nulls was: it removes, so it creates nothing.
func withoutNulls(v *value) (_ value, some bool) {
	if !v.gaps || v.kind != object {
		return *v, true
	}
	out := value{key: v.key, kind: object}
	for i := range v.kids {
		if v.kids[i].kind == null {
			continue
		}
		if k, some := withoutNulls(&v.kids[i]); some {
			out.kids = append(out.kids, k)
		}
	}
	return out, len(out.kids) > 0
}

// delta is what reported must become; nil when it has all of desired.
func (d *document) delta() *value {
	if d.desired == nil {
		return nil
	}
	reported := d.reported
	if reported == nil {
		reported = &value{kind: object}
	}
	v, differ := diff(d.desired, reported)
	if !differ {
		return nil
	}
	return &v
}

// diff returns the part of desired that reported lacks or has otherwise. An
// object without any value in it is not missed.
func diff(desired, reported *value) (value, bool) {
	if desired.kind != object || reported.kind != object {
		return *desired, !equal(desired, reported)
	}
	out := value{key: desired.key, kind: object}
	f := find(reported.kids, len(desired.kids))
	for i := range desired.kids {
		want := &desired.kids[i]
		j := f.index(want.key)
		if j < 0 {
			if hollow(want) {
				continue
			}
			out.kids = append(out.kids, *want)
			continue
		}
		if v, differ := diff(want, &reported.kids[j]); differ {
			out.kids = append(out.kids, v)
		}
	}
	return out, len(out.kids) > 0
}

// hollow tells whether v is an object with nothing but such objects in it.
func hollow(v *value) bool {
	if v.kind != object {
		return false
	}
	for i := range v.kids {
		if !hollow(&v.kids[i]) {
			return false
		}
	}
	return true
}
