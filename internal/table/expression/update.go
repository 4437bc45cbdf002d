package expression

//lint:file-ignore ST1005 clients see AWS's words

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/table/number"
)

// Update is what an UpdateExpression does to an item.
type Update struct{ actions []action }

type action struct {
	clause string // SET, REMOVE, ADD, DELETE
	path   Path
	value  *dynamodb.AttributeValue // of ADD and DELETE
	set    func(Item) (*dynamodb.AttributeValue, error)
}

// maxList bounds the elements of a list that list_append makes: an item has no room for more.
const maxList = 400 << 10 / 3

// Errors of Apply, in AWS's words.
var (
	errMissing = errors.New("The provided expression refers to an attribute that does not exist in the item")
	errPath    = errors.New("The document path provided in the update expression is invalid for update")
	errList    = errors.New("Item size to update has exceeded the maximum allowed size")
	errType    = errors.New("An operand in the update expression has an incorrect data type")
)

// ParseUpdate reads an UpdateExpression: each of the clauses SET, REMOVE, ADD and DELETE at most once.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.UpdateExpressions.html
func ParseUpdate(text string, names *Names) (*Update, error) {
	u := &Update{}
	err := run("UpdateExpression", text, names, func(p *parser) {
		seen := map[string]bool{}
		for p.token != "" {
			clause := strings.ToUpper(p.token)
			one := map[string]func() action{"SET": p.setAction, "REMOVE": p.removeAction, "ADD": p.addAction, "DELETE": p.deleteAction}[clause]
			if one == nil {
				p.unexpected()
			}
			if seen[clause] {
				p.fail("The %q section can only be used once in an update expression;", clause)
			}
			seen[clause] = true
			p.next()
			for {
				p.operator()
				a := one()
				a.clause = clause
				u.actions = append(u.actions, a)
				if !p.accept(",") {
					break
				}
			}
		}
		if overlap(u.Paths()) {
			p.fail("Two document paths overlap with each other; must remove or rewrite one of these paths")
		}
	})
	return u, err
}

// Paths are what is written.
func (u *Update) Paths() (paths []Path) {
	for _, a := range u.actions {
		paths = append(paths, a.path)
	}
	return paths
}

func (p *parser) setAction() action {
	a := action{path: p.path()}
	p.expect("=")
	left := p.setOperand()
	a.set = left
	if p.token == "+" || p.token == "-" {
		minus := p.token == "-"
		p.operator()
		p.next()
		right := p.setOperand()
		a.set = func(i Item) (*dynamodb.AttributeValue, error) {
			x, err := left(i)
			if err != nil {
				return nil, err
			}
			y, err := right(i)
			if err != nil {
				return nil, err
			}
			return sum(x, y, minus)
		}
	}
	return a
}

func (p *parser) setOperand() func(Item) (*dynamodb.AttributeValue, error) {
	defer p.deeper()()
	switch {
	case p.accept("("):
		fn := p.setOperand()
		p.expect(")")
		return fn
	case p.call("if_not_exists"):
		path := p.path()
		p.expect(",")
		otherwise := p.setOperand()
		p.expect(")")
		return func(i Item) (*dynamodb.AttributeValue, error) {
			if v := path.get(i); v != nil {
				return v, nil
			}
			return otherwise(i)
		}
	case p.call("list_append"):
		a := p.setOperand()
		p.expect(",")
		b := p.setOperand()
		p.expect(")")
		return func(i Item) (*dynamodb.AttributeValue, error) {
			x, err := a(i)
			if err != nil {
				return nil, err
			}
			y, err := b(i)
			if err != nil {
				return nil, err
			}
			if x.L == nil || y.L == nil {
				return nil, errType
			}
			if len(x.L)+len(y.L) > maxList {
				return nil, errList
			}
			return &dynamodb.AttributeValue{L: slices.Concat(x.L, y.L, []*dynamodb.AttributeValue{})}, nil
		}
	case strings.HasPrefix(p.token, ":"):
		v := p.value()
		return func(Item) (*dynamodb.AttributeValue, error) { return v, nil }
	}
	path := p.path()
	return func(i Item) (*dynamodb.AttributeValue, error) {
		if v := path.get(i); v != nil {
			return v, nil
		}
		return nil, errMissing
	}
}

func (p *parser) removeAction() action { return action{path: p.path()} }

func (p *parser) addAction() action {
	a := action{path: p.path(), value: p.value()}
	if a.value.N == nil && members(a.value) == nil {
		p.fail("Incorrect operand type for operator or function; operator: ADD, operand type: %s", Type(a.value))
	}
	return a
}

func (p *parser) deleteAction() action {
	a := action{path: p.path(), value: p.value()}
	if members(a.value) == nil {
		p.fail("Incorrect operand type for operator or function; operator: DELETE, operand type: %s", Type(a.value))
	}
	return a
}

func sum(x, y *dynamodb.AttributeValue, minus bool) (*dynamodb.AttributeValue, error) {
	if x.N == nil || y.N == nil {
		return nil, errType
	}
	a, err := number.Parse(*x.N)
	if err != nil {
		return nil, err
	}
	b, err := number.Parse(*y.N)
	if err != nil {
		return nil, err
	}
	if minus {
		b = b.Negated()
	}
	n, err := a.Add(b)
	if err != nil {
		return nil, err
	}
	return &dynamodb.AttributeValue{N: new(n.String())}, nil
}

// Apply gives the item after the update; before stays as it is. All operands are what before has.
func (u *Update) Apply(before Item) (Item, error) {
	after := cloneMap(before)
	var removed []Path
	for _, a := range u.actions {
		old := a.path.get(before)
		var v *dynamodb.AttributeValue
		var err error
		switch {
		case a.clause == "REMOVE":
			removed = append(removed, a.path)
			continue
		case a.clause == "SET":
			v, err = a.set(before)
		case a.clause == "DELETE" && old == nil:
			continue
		case old == nil:
			v = a.value
		case a.value.N != nil:
			v, err = sum(old, a.value, false)
		default:
			if v, err = combined(a.clause, old, a.value); v == nil && err == nil {
				removed = append(removed, a.path)
				continue
			}
		}
		if err == nil {
			err = a.path.put(after, v)
		}
		if err != nil {
			return nil, err
		}
	}
	// From the end of lists, so that indexes mean what they meant before.
	slices.SortFunc(removed, func(a, b Path) int { return slices.CompareFunc(b, a, compareSteps) })
	for _, path := range removed {
		if err := path.remove(after); err != nil {
			return nil, err
		}
	}
	return after, nil
}

func compareSteps(a, b step) int {
	if a.name != b.name {
		return strings.Compare(a.name, b.name)
	}
	return a.index - b.index
}

// combined is a set with members added or deleted; nil when none are left.
func combined(clause string, old, value *dynamodb.AttributeValue) (*dynamodb.AttributeValue, error) {
	if Type(old) != Type(value) {
		return nil, errType
	}
	has := map[string]bool{}
	for _, m := range members(value) {
		has[m] = true
	}
	var out []string
	for _, m := range members(old) {
		if !has[m] {
			out = append(out, m)
		}
	}
	if clause == "ADD" {
		out = append(out, slices.Sorted(maps.Keys(has))...)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return set(old, out), nil
}

// parent is what holds the last step.
func (p Path) parent(item Item) *dynamodb.AttributeValue {
	if len(p) == 1 {
		return &dynamodb.AttributeValue{M: item}
	}
	return p[:len(p)-1].get(item)
}

func (p Path) put(item Item, v *dynamodb.AttributeValue) error {
	in, last := p.parent(item), p[len(p)-1]
	switch {
	case in == nil || last.name != "" && in.M == nil || last.name == "" && in.L == nil:
		return errPath
	case last.name != "":
		in.M[last.name] = v
	case last.index < len(in.L):
		in.L[last.index] = v
	default:
		in.L = append(in.L, v)
	}
	return nil
}

func (p Path) remove(item Item) error {
	in, last := p.parent(item), p[len(p)-1]
	switch {
	case in == nil || last.name != "" && in.M == nil || last.name == "" && in.L == nil:
		return errPath
	case last.name != "":
		delete(in.M, last.name)
	case last.index < len(in.L):
		in.L = slices.Delete(in.L, last.index, last.index+1)
	}
	return nil
}

// cloneMap copies all maps and lists; other values are never written to.
func cloneMap(m Item) Item {
	out := make(Item, len(m))
	for k, v := range m {
		out[k] = clone(v)
	}
	return out
}

func clone(v *dynamodb.AttributeValue) *dynamodb.AttributeValue {
	switch {
	case v.M != nil:
		return &dynamodb.AttributeValue{M: cloneMap(v.M)}
	case v.L != nil:
		out := &dynamodb.AttributeValue{L: make([]*dynamodb.AttributeValue, len(v.L))}
		for i, e := range v.L {
			out.L[i] = clone(e)
		}
		return out
	}
	return v
}
