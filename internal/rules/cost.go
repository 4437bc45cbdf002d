package rules

import (
	_ "embed" // prices.json
	"encoding/json"
)

//go:embed prices.json
var pricesJSON []byte

// Prices are AWS's prices of what rules do, of the first tier; the free tier is left out.
//
// AWS: https://aws.amazon.com/iot-core/pricing/
type Prices struct {
	Region string `json:"region"`
	// Date is when they were read, as 2026-11-22.
	Date string `json:"date"`
	// USD for a million units of UnitBytes.
	Triggered float64 `json:"ruleTriggeredPerMillion"`
	Action    float64 `json:"actionPerMillion"`
	Message   float64 `json:"messagePerMillion"`
	UnitBytes int     `json:"unitBytes"`
}

// AWSPrices are the prices that come with this version.
func AWSPrices() Prices {
	var p Prices
	if err := json.Unmarshal(pricesJSON, &p); err != nil {
		panic(err) // the file is our own
	}
	return p
}

// Cost counts what AWS IoT Core would charge a rule for.
type Cost struct {
	// Triggered is one unit for each 5 KB of each message on the rule's topics, whatever WHERE says.
	Triggered int64 `json:"ruleTriggeredUnits"`
	// Actions is the same for each action that is executed.
	Actions int64 `json:"actionUnits"`
	// Messages is one unit for each 5 KB, topic and payload, of what republish publishes. What subscribers get comes on top.
	Messages int64 `json:"republishedMessageUnits"`
}

// Add counts a message of size bytes, payload and topic, and what the rule made of it.
func (c *Cost) Add(p Prices, size int, o *Outcome) {
	units := func(size int) int64 { return int64(max(1, (size+p.UnitBytes-1)/p.UnitBytes)) }
	if !o.Matches {
		return
	}
	c.Triggered += units(size)
	for _, a := range o.Actions {
		if a.Fault != "" {
			continue
		}
		c.Actions += units(size)
		if a.Kind == "republish" {
			topic := 0
			for _, f := range a.Fields {
				if f.Name == "topic" {
					topic = len(f.Value)
				}
			}
			c.Messages += units(len(o.Output.Payload) + topic)
		}
	}
}

// USD is the price at AWS of what has been counted.
func (c *Cost) USD(p Prices) float64 {
	return (float64(c.Triggered)*p.Triggered + float64(c.Actions)*p.Action + float64(c.Messages)*p.Message) / 1e6
}
