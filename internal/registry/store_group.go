package registry

import (
	"flotilla/internal/store"
)

func insertType(tx store.Tx, ty *thingType) (bool, error) {
	n, err := tx.Exec(`INSERT INTO thing_type (name, id, description, searchable, created, deprecated) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (name) DO NOTHING`, ty.name, ty.id, ty.description, encode(ty.searchable), ty.created, ty.deprecated)
	return n > 0, err
}

const typeColumns = `name, id, description, searchable, created, deprecated`

func selectType(tx store.Tx, name string) (ty thingType, err error) {
	var searchable string
	err = tx.QueryRow(`SELECT `+typeColumns+` FROM thing_type WHERE name = $1`, name).
		Scan(&ty.name, &ty.id, &ty.description, &searchable, &ty.created, &ty.deprecated)
	if err != nil {
		return ty, err
	}
	return ty, decode(searchable, &ty.searchable)
}

func selectTypes(tx store.Tx, after string, limit int) ([]thingType, error) {
	type row struct {
		thingType
		text string
	}
	rows, err := tx.Query(`SELECT `+typeColumns+` FROM thing_type WHERE name > $1 ORDER BY name LIMIT $2`, after, limit)
	list, err := collect(rows, err, func(r *row) []any {
		return []any{&r.name, &r.id, &r.description, &r.text, &r.created, &r.deprecated}
	})
	out := make([]thingType, len(list))
	for i := range list {
		if err == nil {
			err = decode(list[i].text, &list[i].searchable)
		}
		out[i] = list[i].thingType
	}
	return out, err
}

func updateType(tx store.Tx, ty *thingType) error {
	_, err := tx.Exec(`UPDATE thing_type SET description = $2, searchable = $3, deprecated = $4 WHERE name = $1`,
		ty.name, ty.description, encode(ty.searchable), ty.deprecated)
	return err
}

func deleteType(tx store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM thing_type WHERE name = $1`, name)
	return err
}

func insertBillingGroup(tx store.Tx, g *billingGroup) (bool, error) {
	n, err := tx.Exec(`INSERT INTO billing_group (name, id, description, version, created) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name) DO NOTHING`, g.name, g.id, g.description, g.version, g.created)
	return n > 0, err
}

func selectBillingGroup(tx store.Tx, name string) (g billingGroup, err error) {
	err = tx.QueryRow(`SELECT name, id, description, version, created FROM billing_group WHERE name = $1`, name).
		Scan(&g.name, &g.id, &g.description, &g.version, &g.created)
	return g, err
}

func updateBillingGroup(tx store.Tx, g *billingGroup) error {
	_, err := tx.Exec(`UPDATE billing_group SET description = $2, version = $3 WHERE name = $1`, g.name, g.description, g.version)
	return err
}

func deleteBillingGroup(tx store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM billing_group WHERE name = $1`, name)
	return err
}

func selectBillingGroups(tx store.Tx, prefix, from string, limit int) ([]string, error) {
	if end := after(prefix); end != "" {
		return selectNames(tx, `SELECT name FROM billing_group WHERE name > $1 AND name >= $2 AND name < $3 ORDER BY name LIMIT $4`, from, prefix, end, limit)
	}
	return selectNames(tx, `SELECT name FROM billing_group WHERE name > $1 ORDER BY name LIMIT $2`, from, limit)
}

func setBilling(tx store.Tx, thing, group string) error {
	_, err := tx.Exec(`UPDATE thing SET billing = $2 WHERE name = $1`, thing, group)
	return err
}

func selectBilled(tx store.Tx, group, after string, limit int) ([]string, error) {
	return selectNames(tx, `SELECT name FROM thing WHERE billing = $1 AND billing <> '' AND name > $2 ORDER BY name LIMIT $3`, group, after, limit)
}

// group is a row of thing_group.
type group struct {
	name, id         string
	number           int64
	parent           string   // "" = a root
	ancestors        []string // root first, parent last
	description      string
	attributes       map[string]string
	version, created int64
	query            string // what a dynamic group's things are found by; "" = a static group
	built            int64
}

// What group.built says besides the version whose query all memberships follow.
const (
	unbuilt = 0
	leaving = -1 // it is being deleted and gets no things any more
)

// root is the name of the top of the hierarchy.
func (g *group) root() string {
	if len(g.ancestors) > 0 {
		return g.ancestors[0]
	}
	return g.name
}

const groupColumns = `g.name, g.number, g.id, g.parent, g.ancestors, g.description, g.attributes, g.version, g.created, g.query, g.query_built`

// groupRow scans a group.
type groupRow struct {
	group                 group
	ancestors, attributes string
}

func (r *groupRow) fields() []any {
	g := &r.group
	return []any{&g.name, &g.number, &g.id, &g.parent, &r.ancestors, &g.description, &r.attributes, &g.version, &g.created, &g.query, &g.built}
}

func (r *groupRow) decode() error {
	if err := decode(r.ancestors, &r.group.ancestors); err != nil {
		return err
	}
	return decode(r.attributes, &r.group.attributes)
}

func groups(rows []groupRow, err error) ([]group, error) {
	list := make([]group, len(rows))
	for i := range rows {
		if err == nil {
			err = rows[i].decode()
		}
		list[i] = rows[i].group
	}
	return list, err
}

func selectGroup(tx store.Tx, name string) (group, error) {
	var r groupRow
	if err := tx.QueryRow(`SELECT `+groupColumns+` FROM thing_group g WHERE g.name = $1`, name).Scan(r.fields()...); err != nil {
		return group{}, err
	}
	return r.group, r.decode()
}

func insertGroup(tx store.Tx, g *group) (bool, error) {
	n, err := tx.Exec(`INSERT INTO thing_group (name, number, id, parent, ancestors, description, attributes, version, created, query)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING`,
		g.name, g.number, g.id, g.parent, encode(g.ancestors), g.description, encode(g.attributes), g.version, g.created, g.query)
	if err != nil || n == 0 {
		return false, err
	}
	for _, a := range g.ancestors {
		if _, err := tx.Exec(`INSERT INTO thing_group_ancestor (ancestor, name) VALUES ($1, $2)`, a, g.name); err != nil {
			return false, err
		}
	}
	return true, nil
}

func updateGroup(tx store.Tx, g *group) error {
	_, err := tx.Exec(`UPDATE thing_group SET description = $2, attributes = $3, version = $4, query = $5, query_built = $6 WHERE name = $1`,
		g.name, g.description, encode(g.attributes), g.version, g.query, g.built)
	return err
}

// touchGroup rewrites a group's row unchanged, so that nodes that give it a
// child or delete it at the same time contend for it.
func touchGroup(tx store.Tx, name string) error {
	_, err := tx.Exec(`UPDATE thing_group SET version = version WHERE name = $1`, name)
	return err
}

func deleteGroup(tx store.Tx, g *group) error {
	for _, a := range g.ancestors {
		if _, err := tx.Exec(`DELETE FROM thing_group_ancestor WHERE ancestor = $1 AND name = $2`, a, g.name); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM thing_group WHERE name = $1`, g.name)
	return err
}

// countChildren counts the groups directly below one, up to most.
func countChildren(tx store.Tx, parent string, most int) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 AS one FROM thing_group WHERE parent = $1 LIMIT $2) AS children`, parent, most).Scan(&n)
	return n, err
}

// level says which groups a list has.
type level int

const (
	all level = iota
	children
	descendants
)

// selectGroupNames pages by name: all groups, the children of parent ("" = the
// roots), or all below it. prefix "" is any.
func selectGroupNames(tx store.Tx, which level, parent, prefix, from string, limit int) ([]string, error) {
	query := `SELECT name FROM thing_group WHERE name > $1`
	args := []any{from, limit}
	switch which {
	case children:
		query += ` AND parent = $3`
		args = append(args, parent)
	case descendants:
		query = `SELECT name FROM thing_group_ancestor WHERE name > $1 AND ancestor = $3`
		args = append(args, parent)
	}
	if end := after(prefix); end != "" {
		if which == all {
			query += ` AND name >= $3 AND name < $4`
		} else {
			query += ` AND name >= $4 AND name < $5`
		}
		args = append(args, prefix, end)
	}
	return selectNames(tx, query+` ORDER BY name LIMIT $2`, args...)
}

// selectGroupsOfThing pages the groups that a thing was added to.
func selectGroupsOfThing(tx store.Tx, thing, after string, limit int) ([]group, error) {
	rows, err := tx.Query(`SELECT `+groupColumns+` FROM thing_group_member m JOIN thing_group g ON g.number = m.group_number
		WHERE m.thing = $1 AND g.name > $2 ORDER BY g.name LIMIT $3`, thing, after, limit)
	return groups(collect(rows, err, (*groupRow).fields))
}

// selectDynamicGroups gives the dynamic groups, up to limit.
func selectDynamicGroups(tx store.Tx, limit int) ([]group, error) {
	rows, err := tx.Query(`SELECT `+groupColumns+` FROM thing_group g WHERE g.query <> '' ORDER BY g.name LIMIT $1`, limit)
	return groups(collect(rows, err, (*groupRow).fields))
}

// selectGroupsOfPrincipal gives the groups that the things of a principal were
// added to.
func selectGroupsOfPrincipal(tx store.Tx, principal string) ([]group, error) {
	rows, err := tx.Query(`SELECT `+groupColumns+` FROM thing_group g WHERE g.number IN
		(SELECT m.group_number FROM thing_principal p JOIN thing_group_member m ON m.thing = p.thing WHERE p.principal = $1)`, principal)
	return groups(collect(rows, err, (*groupRow).fields))
}

// insertMember adds a thing to a group, and to the reach of the groups above;
// false when it is there already.
func insertMember(tx store.Tx, thing string, g *group) (bool, error) {
	n, err := tx.Exec(`INSERT INTO thing_group_member (thing, group_number) VALUES ($1, $2) ON CONFLICT (thing, group_number) DO NOTHING`, thing, g.number)
	if err != nil || n == 0 {
		return false, err
	}
	for _, a := range g.ancestors {
		_, err := tx.Exec(`INSERT INTO thing_group_reach (group_number, thing) SELECT number, $2 FROM thing_group WHERE name = $1
			ON CONFLICT (group_number, thing) DO NOTHING`, a, thing)
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// deleteMember reverses insertMember.
func deleteMember(tx store.Tx, thing string, g *group) (bool, error) {
	n, err := tx.Exec(`DELETE FROM thing_group_member WHERE thing = $1 AND group_number = $2`, thing, g.number)
	if err != nil || n == 0 {
		return false, err
	}
	for _, a := range g.ancestors {
		_, err := tx.Exec(`DELETE FROM thing_group_reach WHERE thing = $2 AND group_number = (SELECT number FROM thing_group WHERE name = $1)`, a, thing)
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// selectMembers pages the things that were added to a group.
func selectMembers(tx store.Tx, g *group, after string, limit int) ([]string, error) {
	return selectNames(tx, `SELECT thing FROM thing_group_member WHERE group_number = $1 AND thing > $2 ORDER BY thing LIMIT $3`, g.number, after, limit)
}

// selectReach pages the things that were added to groups below one.
func selectReach(tx store.Tx, g *group, after string, limit int) ([]string, error) {
	return selectNames(tx, `SELECT thing FROM thing_group_reach WHERE group_number = $1 AND thing > $2 ORDER BY thing LIMIT $3`, g.number, after, limit)
}
