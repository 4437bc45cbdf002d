package query

import (
	"math"
	"strings"
)

// Circle is passed by locations at most so many metres away.
type Circle struct{ Lat, Lon, Metres float64 }

// Box is passed by locations between two corners; West may be greater than East, across the 180th meridian.
type Box struct{ North, West, South, East float64 }

// Polygon is passed by locations within a ring of latitude and longitude pairs, on a flat map.
type Polygon [][2]float64

// EarthMetres is the mean radius of the Earth.
const EarthMetres = 6_371_008.8

func (c Circle) passes(v Value) bool {
	return v.Located && Distance(c.Lat, c.Lon, v.Lat, v.Lon) <= c.Metres
}

func (b Box) passes(v Value) bool {
	if !v.Located || v.Lat > b.North || v.Lat < b.South {
		return false
	}
	if b.West <= b.East {
		return v.Lon >= b.West && v.Lon <= b.East
	}
	return v.Lon >= b.West || v.Lon <= b.East
}

func (p Polygon) passes(v Value) bool {
	if !v.Located {
		return false
	}
	in := false
	for i, j := 0, len(p)-1; i < len(p); j, i = i, i+1 {
		if (p[i][0] > v.Lat) != (p[j][0] > v.Lat) &&
			v.Lon < (p[j][1]-p[i][1])*(v.Lat-p[i][0])/(p[j][0]-p[i][0])+p[i][1] {
			in = !in
		}
	}
	return in
}

// Distance is how many metres two locations, in degrees, are apart on a sphere.
func Distance(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	s1, s2 := math.Sin((lat2-lat1)*rad/2), math.Sin((lon2-lon1)*rad/2)
	h := s1*s1 + math.Cos(lat1*rad)*math.Cos(lat2*rad)*s2*s2
	return 2 * EarthMetres * math.Asin(math.Sqrt(min(1, h)))
}

// geo reads a geoquery: its name and arguments, cut at commas.
func geo(text string) (Test, string) {
	parts := strings.Split(text, ",")
	name, args := parts[0], parts[1:]
	scale := 1.0
	if name == "geo_distance" && len(args) == 3 {
		for unit, metres := range map[string]float64{"km": 1000, "mi": 1609.344, "m": 1} {
			if s, ok := strings.CutSuffix(args[2], unit); ok && (unit != "m" || !strings.HasSuffix(args[2], "km")) {
				args[2], scale = s, metres
				break
			}
		}
	}
	n := make([]float64, len(args))
	for i, a := range args {
		f, ok := number(strings.TrimSpace(a))
		if !ok {
			return nil, "expected a number instead of \"" + a + "\""
		}
		if limit := 90.0 + 90*float64(i%2); math.Abs(f) > limit && (name != "geo_distance" || i < 2) {
			return nil, "a latitude is between -90 and 90, a longitude between -180 and 180"
		}
		n[i] = f
	}
	switch {
	case name == "geo_distance" && len(n) == 3 && n[2] >= 0:
		return Circle{n[0], n[1], n[2] * scale}, ""
	case name == "geo_bounding_box" && len(n) == 4 && n[0] >= n[2]:
		return Box{North: n[0], West: n[1], South: n[2], East: n[3]}, ""
	case name == "geo_polygon" && len(n) >= 6 && len(n)%2 == 0:
		p := make(Polygon, len(n)/2)
		for i := range p {
			p[i] = [2]float64{n[2*i], n[2*i+1]}
		}
		return p, ""
	}
	return nil, "expected geo_distance,LAT,LON,NUMBER(m|km|mi), geo_bounding_box,NORTH,WEST,SOUTH,EAST or geo_polygon with three or more points"
}
