package pgstore

// Full tells whether another write would have to wait for room.
func (db *DB) Full() bool { return len(db.in) == cap(db.in) }
