package audit

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"flotilla/internal/audit/chain"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/store"
)

const (
	defaultPage = 100
	maxLooked   = 5000 // records that one call looks through
)

// ListAuditNodes lists the nodes that have a chain of records, and names the one that answers.
func (l *Log) ListAuditNodes(ctx context.Context, _ *flotilla.ListAuditNodesRequest) (*flotilla.ListAuditNodesResponse, error) {
	out := &flotilla.ListAuditNodesResponse{NodeId: &l.node}
	err := l.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		out.NodeIds, err = selectNodes(tx)
		return err
	})
	return out, err
}

// ListAuditHeads lists the signed heads of a node's chain by their numbers.
func (l *Log) ListAuditHeads(ctx context.Context, in *flotilla.ListAuditHeadsRequest) (*flotilla.ListAuditHeadsResponse, error) {
	out := &flotilla.ListAuditHeadsResponse{Heads: []*flotilla.AuditHead{}}
	err := l.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		heads, err := selectHeads(tx, in.NodeId, number(in.After, 0), size(in.MaxResults))
		for _, h := range heads {
			out.Heads = append(out.Heads, &flotilla.AuditHead{
				NodeId: &h.Node, Sequence: &h.Seq, Trimmed: &h.Trimmed, Time: &h.Time, Hash: h.Hash, PublicKey: h.Key, Signature: h.Signature,
			})
		}
		return err
	})
	return out, err
}

// ListAuditRecords lists the records of a node's chain by their numbers: those between after and before, written at
// since (milliseconds since 1970) or later. principal is an ARN or the name of an identity, resource an ARN or its end.
// next is where to go on, as after or (descending) before; a page may be empty and not the last.
func (l *Log) ListAuditRecords(ctx context.Context, in *flotilla.ListAuditRecordsRequest) (*flotilla.ListAuditRecordsResponse, error) {
	out := &flotilla.ListAuditRecordsResponse{Records: []*flotilla.AuditRecord{}}
	most := size(in.MaxResults)
	after, before := number(in.After, 0), number(in.Before, math.MaxInt64)
	descending := in.Descending != nil && *in.Descending
	err := l.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		for looked := 0; ; {
			n := min(most, 500)
			list, err := selectRecords(tx, in.NodeId, after, before, descending, n)
			if err != nil {
				return err
			}
			for _, r := range list {
				looked++
				if descending {
					before = r.Seq
				} else {
					after = r.Seq
				}
				if in.Since != nil && r.Time < *in.Since {
					if descending {
						return nil
					}
					continue
				}
				if matches(in, r) {
					out.Records = append(out.Records, &flotilla.AuditRecord{NodeId: &r.Node, Sequence: &r.Seq, Time: &r.Time, Body: &r.Body, Hash: r.Hash})
				}
				if len(out.Records) == most || looked >= maxLooked {
					next := after
					if descending {
						next = before
					}
					out.Next = &next
					return nil
				}
			}
			if len(list) < n {
				return nil
			}
		}
	})
	return out, err
}

func matches(in *flotilla.ListAuditRecordsRequest, r *chain.Record) bool {
	if in.Principal == nil && in.Operation == nil && in.Resource == nil {
		return true
	}
	var e chain.Entry
	if json.Unmarshal([]byte(r.Body), &e) != nil {
		return false
	}
	return (in.Principal == nil || e.Principal == *in.Principal || strings.HasSuffix(e.Principal, ":user/"+*in.Principal)) &&
		(in.Operation == nil || e.Operation == *in.Operation) &&
		(in.Resource == nil || slices.ContainsFunc(e.Resources, func(arn string) bool { return strings.HasSuffix(arn, *in.Resource) }))
}

func size(n *int32) int {
	if n == nil {
		return defaultPage
	}
	return int(*n)
}

func number(n *int64, otherwise int64) int64 {
	if n == nil {
		return otherwise
	}
	return *n
}
