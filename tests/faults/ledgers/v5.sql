-- What sqlite3 .dump says of a ledger of version 5.
PRAGMA application_id = 1414681416;
PRAGMA user_version = 5;
BEGIN TRANSACTION;
CREATE TABLE artifact (run_id TEXT NOT NULL REFERENCES run, path TEXT NOT NULL, size_bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, pulled_at TEXT NOT NULL, PRIMARY KEY (run_id, path));
INSERT INTO "artifact" VALUES('run-1','category4/my model ''ü'' .h5',0,'efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef','2026-08-01T12:00:00.000000Z');
CREATE TABLE attempt (session_id TEXT NOT NULL REFERENCES exam, category TEXT NOT NULL,
        number INTEGER NOT NULL, sha256 TEXT NOT NULL, run_id TEXT, snapshot TEXT NOT NULL,
        at TEXT NOT NULL, passed_s REAL NOT NULL, PRIMARY KEY (session_id, category, number));
INSERT INTO "attempt" VALUES('session-1','category4',1,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','run-1','abababababababababababababababababababababababababababababababab','2026-08-01T13:00:00.000000Z',3600.0);
CREATE TABLE attempt_grade (session_id TEXT NOT NULL, category TEXT NOT NULL, number INTEGER NOT NULL,
        outcome TEXT NOT NULL, points INTEGER, metric TEXT NOT NULL, value REAL,
        reason TEXT NOT NULL, graded_at TEXT NOT NULL,
        FOREIGN KEY (session_id, category, number) REFERENCES attempt, PRIMARY KEY (session_id, category, number));
INSERT INTO "attempt_grade" VALUES('session-1','category4',1,'graded',5,'accuracy',0.93,'','2026-08-01T13:00:09.000000Z');
CREATE TABLE exam (session_id TEXT NOT NULL REFERENCES session, workspace TEXT NOT NULL,
        seed INTEGER NOT NULL, lasts_s REAL NOT NULL, practice INTEGER NOT NULL,
        pass_points INTEGER NOT NULL, PRIMARY KEY (session_id));
INSERT INTO "exam" VALUES('session-1','/home/me/exam it''s ü',7,18000.0,0,20);
CREATE TABLE exam_end (session_id TEXT NOT NULL REFERENCES exam, at TEXT NOT NULL, passed_s REAL NOT NULL, PRIMARY KEY (session_id));
INSERT INTO "exam_end" VALUES('session-1','2026-08-01T17:00:00.000000Z',18000.0);
CREATE TABLE exam_mark (session_id TEXT NOT NULL REFERENCES exam, at TEXT NOT NULL, boot TEXT NOT NULL,
        up_s REAL NOT NULL, passed_s REAL NOT NULL, PRIMARY KEY (session_id, at));
INSERT INTO "exam_mark" VALUES('session-1','2026-08-01T12:00:00.000000Z','boot-1',1000.5,0.0);
CREATE TABLE promotion (workspace TEXT NOT NULL, category TEXT NOT NULL, sha256 TEXT NOT NULL,
        at TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (workspace, category, sha256, at));
INSERT INTO "promotion" VALUES('/home/me/exam it''s ü','category4','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','2026-08-01T12:00:00.000000Z','5 is better than 3');
CREATE TABLE run (run_id TEXT NOT NULL, workspace TEXT NOT NULL, category TEXT NOT NULL,
        remote TEXT NOT NULL, snapshot TEXT NOT NULL, command TEXT NOT NULL,
        submitted_at TEXT NOT NULL, price_per_hour TEXT, currency TEXT NOT NULL,
        price_source TEXT NOT NULL, params TEXT NOT NULL, session_id TEXT REFERENCES session, PRIMARY KEY (run_id));
INSERT INTO "run" VALUES('run-1','/home/me/exam it''s ü','category4','azure-k80','abababababababababababababababababababababababababababababababab','python category4/category4.py','2026-08-01T12:00:00.000000Z','0.50','USD','train.yaml','[["lr", "0.1"]]','session-1');
CREATE TABLE run_event (run_id TEXT NOT NULL REFERENCES run, state TEXT NOT NULL, at TEXT NOT NULL,
        exit_code INTEGER, signal INTEGER, reason TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (run_id, state));
INSERT INTO "run_event" VALUES('run-1','succeeded','2026-08-01T12:09:00.000000Z',0,NULL,'','vm');
CREATE TABLE run_price (run_id TEXT NOT NULL REFERENCES run, workspace TEXT NOT NULL,
    category TEXT NOT NULL, remote TEXT NOT NULL, session_id TEXT, submitted_at TEXT NOT NULL,
    currency TEXT NOT NULL, started_at TEXT, ended_at TEXT, microseconds INTEGER, units INTEGER, nanos INTEGER, estimated INTEGER, PRIMARY KEY (run_id));
INSERT INTO "run_price" VALUES('run-1','/home/me/exam it''s ü','category4','azure-k80','session-1','2026-08-01T12:00:00.000000Z','USD',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE schema_step (version INTEGER PRIMARY KEY, trainshed TEXT NOT NULL);
INSERT INTO "schema_step" VALUES(1,'0.1.0');
INSERT INTO "schema_step" VALUES(2,'0.1.0');
INSERT INTO "schema_step" VALUES(3,'0.1.0');
INSERT INTO "schema_step" VALUES(4,'0.1.0');
INSERT INTO "schema_step" VALUES(5,'0.1.0');
CREATE TABLE session (id TEXT NOT NULL, name TEXT, remote TEXT NOT NULL, started_at TEXT NOT NULL, PRIMARY KEY (id));
INSERT INTO "session" VALUES('session-1','it''s ü','azure-k80','2026-08-01T12:00:00.000000Z');
CREATE TABLE session_end (session_id TEXT NOT NULL REFERENCES session, ended_at TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (session_id));
INSERT INTO "session_end" VALUES('session-1','2026-08-01T13:00:00.000000Z','estimated');
CREATE TABLE session_terms (session_id TEXT NOT NULL REFERENCES session, budget TEXT, currency TEXT NOT NULL,
        ends_at TEXT, idle_s REAL, PRIMARY KEY (session_id));
INSERT INTO "session_terms" VALUES('session-1','5.00','USD','2026-08-01T17:00:00.000000Z',1200.0);
CREATE TABLE sighting (remote TEXT NOT NULL, at TEXT NOT NULL, power TEXT NOT NULL, source TEXT NOT NULL,
        boot TEXT NOT NULL, reason TEXT NOT NULL, booted_at TEXT, PRIMARY KEY (remote, at, source));
INSERT INTO "sighting" VALUES('azure-k80','2026-08-01T12:00:00.000000Z','running','vm','boot-1','',NULL);
CREATE TABLE stint (id TEXT NOT NULL, remote TEXT NOT NULL, started_at TEXT NOT NULL,
        provenance TEXT NOT NULL, price_per_hour TEXT, currency TEXT NOT NULL,
        price_source TEXT NOT NULL, region TEXT NOT NULL, spot INTEGER NOT NULL, fetched_at TEXT,
        disk_per_hour TEXT, minimum_s REAL NOT NULL, step_s REAL NOT NULL, PRIMARY KEY (id));
INSERT INTO "stint" VALUES('azure-k80 1','azure-k80','2026-08-01T12:00:00.000000Z','cloud','0.50','USD','config','eastus',1,'2026-08-01T12:00:00.000000Z','0.0001',60.0,1.0);
CREATE TABLE stint_end (stint_id TEXT NOT NULL REFERENCES stint, ended_at TEXT NOT NULL,
        provenance TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (stint_id));
INSERT INTO "stint_end" VALUES('azure-k80 1','2026-08-01T13:00:00.000000Z','vm','idle');
CREATE TABLE verdict (id TEXT NOT NULL, workspace TEXT NOT NULL, category TEXT NOT NULL,
        sha256 TEXT NOT NULL, run_id TEXT REFERENCES run, outcome TEXT NOT NULL, points INTEGER,
        metric TEXT NOT NULL, value REAL, thresholds TEXT NOT NULL, higher_is_better INTEGER,
        reason TEXT NOT NULL, size_bytes INTEGER, versions TEXT NOT NULL,
        graded_at TEXT NOT NULL, PRIMARY KEY (id));
INSERT INTO "verdict" VALUES('verdict-1','/home/me/exam it''s ü','category4','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','run-1','graded',5,'accuracy',0.93,'[0.5, 0.6, 0.7, 0.8, 0.9]',1,'',1099511627776,'[["keras", "3.9"], ["tensorflow", "2.21"]]','2026-08-01T12:00:00.000000Z');
CREATE TRIGGER session_kept BEFORE DELETE ON session BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_unchanged BEFORE UPDATE ON session BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_once BEFORE INSERT ON session WHEN EXISTS (SELECT 1 FROM session WHERE id = NEW.id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER session_end_kept BEFORE DELETE ON session_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_end_unchanged BEFORE UPDATE ON session_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_end_once BEFORE INSERT ON session_end WHEN EXISTS (SELECT 1 FROM session_end WHERE session_id = NEW.session_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER run_kept BEFORE DELETE ON run BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER run_unchanged BEFORE UPDATE ON run BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER run_once BEFORE INSERT ON run WHEN EXISTS (SELECT 1 FROM run WHERE run_id = NEW.run_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER run_event_kept BEFORE DELETE ON run_event BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER run_event_unchanged BEFORE UPDATE ON run_event BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER run_event_once BEFORE INSERT ON run_event WHEN EXISTS (SELECT 1 FROM run_event WHERE run_id = NEW.run_id AND state = NEW.state) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER artifact_kept BEFORE DELETE ON artifact BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER artifact_unchanged BEFORE UPDATE ON artifact BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER artifact_once BEFORE INSERT ON artifact WHEN EXISTS (SELECT 1 FROM artifact WHERE run_id = NEW.run_id AND path = NEW.path) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER verdict_kept BEFORE DELETE ON verdict BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER verdict_unchanged BEFORE UPDATE ON verdict BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER verdict_once BEFORE INSERT ON verdict WHEN EXISTS (SELECT 1 FROM verdict WHERE id = NEW.id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER promotion_kept BEFORE DELETE ON promotion BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER promotion_unchanged BEFORE UPDATE ON promotion BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER promotion_once BEFORE INSERT ON promotion WHEN EXISTS (SELECT 1 FROM promotion WHERE workspace = NEW.workspace AND category = NEW.category AND sha256 = NEW.sha256 AND at = NEW.at) BEGIN SELECT RAISE(IGNORE); END;
CREATE INDEX run_price_open ON run_price (run_id) WHERE estimated IS NULL;
CREATE INDEX run_price_end ON run_price (remote, ended_at);
CREATE TRIGGER run_price_unsettled AFTER INSERT ON run_event BEGIN
    INSERT OR IGNORE INTO run_price (run_id, workspace, category, remote, session_id, submitted_at, currency)
    SELECT run_id, workspace, category, remote, session_id, submitted_at, currency FROM run WHERE run_id = NEW.run_id;
    UPDATE run_price SET started_at = NULL, ended_at = NULL, microseconds = NULL,
    units = NULL, nanos = NULL, estimated = NULL WHERE run_id = NEW.run_id;
    UPDATE run_price SET started_at = NULL, ended_at = NULL, microseconds = NULL,
    units = NULL, nanos = NULL, estimated = NULL WHERE remote = (SELECT remote FROM run WHERE run_id = NEW.run_id)
    AND ended_at > (SELECT min(at) FROM run_event
    WHERE run_id = NEW.run_id AND state <> 'queued'); END;
CREATE TRIGGER session_terms_kept BEFORE DELETE ON session_terms BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_terms_unchanged BEFORE UPDATE ON session_terms BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER session_terms_once BEFORE INSERT ON session_terms WHEN EXISTS (SELECT 1 FROM session_terms WHERE session_id = NEW.session_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER stint_kept BEFORE DELETE ON stint BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER stint_unchanged BEFORE UPDATE ON stint BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER stint_once BEFORE INSERT ON stint WHEN EXISTS (SELECT 1 FROM stint WHERE id = NEW.id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER stint_end_kept BEFORE DELETE ON stint_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER stint_end_unchanged BEFORE UPDATE ON stint_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER stint_end_once BEFORE INSERT ON stint_end WHEN EXISTS (SELECT 1 FROM stint_end WHERE stint_id = NEW.stint_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER sighting_kept BEFORE DELETE ON sighting BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER sighting_unchanged BEFORE UPDATE ON sighting BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER sighting_once BEFORE INSERT ON sighting WHEN EXISTS (SELECT 1 FROM sighting WHERE remote = NEW.remote AND at = NEW.at AND source = NEW.source) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER exam_kept BEFORE DELETE ON exam BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_unchanged BEFORE UPDATE ON exam BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_once BEFORE INSERT ON exam WHEN EXISTS (SELECT 1 FROM exam WHERE session_id = NEW.session_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER exam_mark_kept BEFORE DELETE ON exam_mark BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_mark_unchanged BEFORE UPDATE ON exam_mark BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_mark_once BEFORE INSERT ON exam_mark WHEN EXISTS (SELECT 1 FROM exam_mark WHERE session_id = NEW.session_id AND at = NEW.at) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER exam_end_kept BEFORE DELETE ON exam_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_end_unchanged BEFORE UPDATE ON exam_end BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER exam_end_once BEFORE INSERT ON exam_end WHEN EXISTS (SELECT 1 FROM exam_end WHERE session_id = NEW.session_id) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER attempt_kept BEFORE DELETE ON attempt BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER attempt_unchanged BEFORE UPDATE ON attempt BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER attempt_once BEFORE INSERT ON attempt WHEN EXISTS (SELECT 1 FROM attempt WHERE session_id = NEW.session_id AND category = NEW.category AND number = NEW.number) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER attempt_grade_kept BEFORE DELETE ON attempt_grade BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER attempt_grade_unchanged BEFORE UPDATE ON attempt_grade BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END;
CREATE TRIGGER attempt_grade_once BEFORE INSERT ON attempt_grade WHEN EXISTS (SELECT 1 FROM attempt_grade WHERE session_id = NEW.session_id AND category = NEW.category AND number = NEW.number) BEGIN SELECT RAISE(IGNORE); END;
COMMIT;
