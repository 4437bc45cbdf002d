package sql

type cache struct{}
