"""MySQL and MariaDB: what PyMySQL, MySQL Connector/Python and mariadb said to MariaDB 10.11."""

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation

_PYMYSQL = (
    (
        TO_CLIENT,
        (
            b'd\x00\x00\x00\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00"\x00\x00\x00zfq&dJ#l\x00'
            b'\xfe\xf7\x08\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00{D"xX20'
            b"9n?0p\x00mysql_native_password\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"\x9f\x00\x00\x01\r\xa2:\x00\xff\xff\xff\x00-\x00\x00\x00\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00app\x00\x14\xb1\xa8"
            b"*\xce.\xb3\xe4\x9d\x00\xe4\x84\x1aE\x83>cd\x19d!shop\x00mysql_native_password"
            b"\x00J\x0c_client_name\x07pymysql\x0f_client_version\x051.2.4\x04_pid\x045818"
            b"\x0cprogram_name\x07shopapp"
        ),
    ),
    (TO_CLIENT, b"\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"\x12\x00\x00\x00\x03SET NAMES utf8mb4"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"\x13\x00\x00\x00\x03SET AUTOCOMMIT = 0"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (
        TO_SERVER,
        b">\x00\x00\x00\x03SELECT name FROM orders WHERE name='O\\'Re\\\\illy \xc3\xa9' OR id = 1",
    ),
    (
        TO_CLIENT,
        (
            b"\x01\x00\x00\x01\x01.\x00\x00\x02\x03def\x04shop\x06orders\x06orders\x04name"
            b"\x04name\x0c-\x00\xc8\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x05\x00\x00\x03\xfe"
            b"\x00\x00!\x00\x03\x00\x00\x04\x02n1\x05\x00\x00\x05\xfe\x00\x00!\x00"
        ),
    ),
    (TO_SERVER, b"\x03\x00\x00\x00\x02hr"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"),
    (
        TO_SERVER,
        b"H\x00\x00\x00\x03INSERT INTO salaries (id, x) SELECT id, 1 FROM shop.orders WHERE id < 3",
    ),
    (
        TO_CLIENT,
        b".\x00\x00\x01\x00\x03\x00\x01\x00\x00\x00&Records: 3  Duplicates: 0  Warnings: 0",
    ),
    (TO_SERVER, b"\x01\x00\x00\x00\x0e"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"),
    (TO_SERVER, b"\x0b\x00\x00\x00\x03USE nosuch"),
    (TO_CLIENT, b"\"\x00\x00\x01\xff\x19\x04#42000Unknown database 'nosuch'"),
    (TO_SERVER, b"\x15\x00\x00\x00\x03DELETE FROM salaries"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\xce\x00!\x00\x00\x00"),
    (TO_SERVER, b"\x07\x00\x00\x00\x03COMMIT"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b"\x01\x00\x00\x00\x01"),
)
_CONNECTOR = (
    (
        TO_CLIENT,
        (
            b"d\x00\x00\x00\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00#\x00\x00\x00Ht2:l2S-\x00"
            b"\xfe\xf7\x08\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00&u=o7dp"
            b"*yF2f\x00mysql_native_password\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"\xe2\x00\x00\x01\r\xa2;\x00\x00\x00\x00@-\x00\x00\x00\x00\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00app\x00\x14\x17\xd0\xc4"
            b";\x06\xb5\xe4Ons\x15]{\xb7\xc9\xb4\xc7\x91\n\x98shop\x00mysql_native_password"
            b"\x00\x8d\x04_pid\x045818\t_platform\x06x86_64\x0c_source_host\x02vm\x0c_client_"
            b"name\x16mysql-connector-python\x0f_client_license\x07GPL-2.0\x0f_client_version"
            b"\x0726.10.0\x03_os\tDebian-12"
        ),
    ),
    (TO_CLIENT, b"\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"1\x00\x00\x00\x03SET NAMES 'utf8mb4' COLLATE 'utf8mb4_general_ci'"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"\x1f\x00\x00\x00\x03SET @@session.autocommit = OFF"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b"\x01\x00\x00\x00\x0e"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b"%\x00\x00\x00\x16SELECT name FROM orders WHERE id = ?"),
    (
        TO_CLIENT,
        (
            b"\x0c\x00\x00\x01\x00\x05\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x17\x00\x00"
            b"\x02\x03def\x00\x00\x00\x01?\x00\x0c?\x00\x00\x00\x00\x00\x06\x80\x00\x00\x00"
            b"\x00\x05\x00\x00\x03\xfe\x00\x00\x00\x00.\x00\x00\x04\x03def\x04shop\x06orders"
            b"\x06orders\x04name\x04name\x0c-\x00\xc8\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x05"
            b"\x00\x00\x05\xfe\x00\x00\x00\x00"
        ),
    ),
    (TO_SERVER, b"\x05\x00\x00\x00\x1a\x05\x00\x00\x00"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b"\x0f\x00\x00\x00\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x01\x80\x01"),
    (
        TO_CLIENT,
        (
            b"\x01\x00\x00\x01\x01.\x00\x00\x02\x03def\x04shop\x06orders\x06orders\x04name"
            b"\x04name\x0c-\x00\xc8\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x05\x00\x00\x03\xfe"
            b"\x00\x00\x01\x00\x05\x00\x00\x04\x00\x00\x02n1\x05\x00\x00\x05\xfe\x00\x00\x01"
            b"\x00"
        ),
    ),
    (TO_SERVER, b"\x05\x00\x00\x00\x1a\x05\x00\x00\x00"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"),
    (TO_SERVER, b"\x0f\x00\x00\x00\x17\x05\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x01\x80\x02"),
    (
        TO_CLIENT,
        (
            b"\x01\x00\x00\x01\x01.\x00\x00\x02\x03def\x04shop\x06orders\x06orders\x04name"
            b"\x04name\x0c-\x00\xc8\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x05\x00\x00\x03\xfe"
            b"\x00\x00\x01\x00\x05\x00\x00\x04\x00\x00\x02n2\x05\x00\x00\x05\xfe\x00\x00\x01"
            b"\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"\x05\x00\x00\x00\x19\x05\x00\x00\x00\xb0\x00\x00\x00\x11root\x00\x00hr\x00-\x00"
            b"mysql_native_password\x00\x8d\x04_pid\x045818\t_platform\x06x86_64\x0c_source_h"
            b"ost\x02vm\x0c_client_name\x16mysql-connector-python\x0f_client_license\x07GPL-2"
            b".0\x0f_client_version\x0726.10.0\x03_os\tDebian-12"
        ),
    ),
    (TO_CLIENT, b",\x00\x00\x01\xfemysql_native_password\x00Ht2:l2S-&u=o7dp*yF2f\x00"),
    (TO_SERVER, b"\x00\x00\x00\x02"),
    (TO_CLIENT, b"\x07\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"1\x00\x00\x00\x03SET NAMES 'utf8mb4' COLLATE 'utf8mb4_general_ci'"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"),
    (TO_SERVER, b"\x1f\x00\x00\x00\x03SET @@session.autocommit = OFF"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b"\x01\x00\x00\x00\x0e"),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"),
    (TO_SERVER, b'"\x00\x00\x00\x03SELECT NULL FROM salaries LIMIT 2'),
    (
        TO_CLIENT,
        (
            b"\x01\x00\x00\x01\x01\x1a\x00\x00\x02\x03def\x00\x00\x00\x04NULL\x00\x0c?\x00"
            b"\x00\x00\x00\x00\x06\x80\x00\x00\x00\x00\x05\x00\x00\x03\xfe\x00\x00!\x00\x05"
            b"\x00\x00\x04\xfe\x00\x00!\x00"
        ),
    ),
    (TO_SERVER, b"\x01\x00\x00\x00\x01"),
)
_COMPRESSED = (
    (
        TO_CLIENT,
        (
            b"d\x00\x00\x00\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00$\x00\x00\x00^ydlokIk\x00"
            b"\xfe\xf7\x08\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00]sHN1IZ"
            b"gwB$)\x00mysql_native_password\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"\xd3\x00\x00\x01\xac\xa2\xbf\x00\x00\x00\x10\x00!\x00\x00\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00app\x00\x14\xa3"
            b'ZMz\x88\x9c\x8b\xbc*\xd5\xcc|\xb4\x8b"Z\\F*\xb5shop\x00mysql_native_password'
            b"\x00~\x03_os\x05Linux\x0c_client_name\nlibmariadb\x04_pid\x045843\x0f_client_ve"
            b"rsion\x063.3.20\t_platform\x06x86_64\x0cprogram_name\x05mysql\x0c_server_host\t"
            b"127.0.0.1"
        ),
    ),
    (TO_CLIENT, b"\x10\x00\x00\x02\x00\x00\x00\x02@\x00\x00\x00\x07\x01\x05\x04shop"),
    (TO_SERVER, b'&\x00\x00\x00\x00\x00\x00"\x00\x00\x00\x03DELETE FROM orders WHERE id > 900'),
    (TO_CLIENT, b"\x0b\x00\x00\x01\x00\x00\x00\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"),
    (
        TO_SERVER,
        (
            b"X\x00\x00\x00\x00\x00\x00T\x00\x00\x00\x03LOAD DATA LOCAL INFILE '/tmp/psql/s.c"
            b"sv' INTO TABLE orders FIELDS TERMINATED BY ','"
        ),
    ),
    (TO_CLIENT, b"\x14\x00\x00\x01\x00\x00\x00\x10\x00\x00\x01\xfb/tmp/psql/s.csv"),
    (TO_SERVER, b"\x14\x00\x00\x02\x00\x00\x00\x0c\x00\x00\x02901,x\n902,y\n\x00\x00\x00\x03"),
    (
        TO_CLIENT,
        (
            b"\x1d\x00\x00\x03\x00\x00\x00\x19\x00\x00\x03\xff\xff\xff\x01\x02\x02\x00\x00"
            b"\x00\x0fEnd bulk insert;\x00\x00\x04\x00\x00\x007\x00\x00\x04\x00\x02\x00\x02"
            b"\x00\x00\x00/Records: 2  Deleted: 0  Skipped: 0  Warnings: 0"
        ),
    ),
    (TO_SERVER, b"(\x00\x00\x00\x00\x00\x00$\x00\x00\x00\x03SELECT * FROM orders WHERE id > 900"),
    (
        TO_CLIENT,
        (
            b"h\x00\x00\x01\x8e\x00\x00x\x9ccb``db\xd4f``bNIMc)\xce\xc8/`\xcb/JI-*\x86RL\x99)"
            b"@\xc4\xc0c\xcf\xc0\xcd\xc0\xc0\xc0\xcc\x1c\x00$\xf5A\x0c\xec\xcaY\xf2\x12sS\xc1"
            b'\x04\x03\x8f"\xc34\xa0\xe2\xbf\x0c \xc0\xca\xc0\xc0\xf2\x0fh\x0b\x03\x1b\x90'
            b"\xcdli`\xc8X\x01d\xb1\x01YF\x8c\x95@Iv\xb0$\x00\x92\xe7\x1cH"
        ),
    ),
    (TO_SERVER, b"\x05\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01"),
)
_FILE = (
    (
        TO_CLIENT,
        (
            b"d\x00\x00\x00\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00%\x00\x00\x00J2YIDVf}\x00"
            b"\xfe\xf7\x08\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00aM?4'eG"
            b"s01FM\x00mysql_native_password\x00"
        ),
    ),
    (
        TO_SERVER,
        (
            b"\xd3\x00\x00\x01\x8c\xa2\xbf\x00\x00\x00\x10\x00!\x00\x00\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00app\x00\x14\xc0"
            b"\xc4\n\x8d\x87\xf5f\x1a\x91\xab\xde\x0c\x18m\x19*\x7fb\xfaEshop\x00mysql_native"
            b"_password\x00~\x03_os\x05Linux\x0c_client_name\nlibmariadb\x04_pid\x045846\x0f_"
            b"client_version\x063.3.20\t_platform\x06x86_64\x0cprogram_name\x05mysql\x0c_serv"
            b"er_host\t127.0.0.1"
        ),
    ),
    (TO_CLIENT, b"\x10\x00\x00\x02\x00\x00\x00\x02@\x00\x00\x00\x07\x01\x05\x04shop"),
    (TO_SERVER, b'"\x00\x00\x00\x03DELETE FROM orders WHERE id > 900'),
    (TO_CLIENT, b"\x07\x00\x00\x01\x00\x02\x00\x02\x00\x00\x00"),
    (
        TO_SERVER,
        b"T\x00\x00\x00\x03LOAD DATA LOCAL INFILE '/tmp/psql/s.csv' INTO TABLE orders FIELDS TERMINATED BY ','",
    ),
    (TO_CLIENT, b"\x10\x00\x00\x01\xfb/tmp/psql/s.csv"),
    (TO_SERVER, b"\x0c\x00\x00\x02901,x\n902,y\n\x00\x00\x00\x03"),
    (
        TO_CLIENT,
        (
            b"\x19\x00\x00\x04\xff\xff\xff\x01\x02\x02\x00\x00\x00\x0fEnd bulk insert7\x00"
            b"\x00\x05\x00\x02\x00\x02\x00\x00\x00/Records: 2  Deleted: 0  Skipped: 0  Warnin"
            b"gs: 0"
        ),
    ),
    (TO_SERVER, b"$\x00\x00\x00\x03SELECT * FROM orders WHERE id > 900"),
    (
        TO_CLIENT,
        (
            b"\x02\x00\x00\x01\x02\x01+\x00\x00\x02\x03def\x04shop\x06orders\x06orders\x02id"
            b"\x02id\x00\x0c?\x00\x0b\x00\x00\x00\x03\x03P\x00\x00\x00/\x00\x00\x03\x03def"
            b"\x04shop\x06orders\x06orders\x04name\x04name\x00\x0c!\x00\x96\x00\x00\x00\xfd"
            b"\x00\x00\x00\x00\x00\x05\x00\x00\x04\xfe\x00\x00\x02\x00\x06\x00\x00\x05\x03901"
            b"\x01x\x06\x00\x00\x06\x03902\x01y\x05\x00\x00\x07\xfe\x00\x00\x02\x00"
        ),
    ),
    (TO_SERVER, b"\x01\x00\x00\x00\x01"),
)


def _said(
    session: dict[str, Value], command: bytes, verbs: str | None = None, tables: str = "", **more: Value
) -> tuple[str, dict[str, Value]]:
    fields: dict[str, Value] = {"mysql.command": command}
    if verbs is not None:
        fields["mysql.verb"] = tuple(verbs.encode().split())
        fields["mysql.tables"] = tuple(tables.encode().split())
        fields["mysql.unsure"] = fields["mysql.cut"] = 0
    return "mysql", fields | session | {f"mysql.{name}": value for name, value in more.items()}


def _session(user: bytes, database: bytes, **more: Value) -> dict[str, Value]:
    session: dict[str, Value] = {
        "mysql.user": user,
        "mysql.database": database,
        "mysql.plugin": b"mysql_native_password",
        "mysql.server": b"5.5.5-10.11.19-MariaDB-0+deb12u1",
    }
    return session | {f"mysql.{name}": value for name, value in more.items()}


_SHOP = _session(b"app", b"shop", program=b"shopapp")
_HR = _session(b"app", b"hr", program=b"shopapp")
_APP = _session(b"app", b"shop")
_ROOT = _session(b"root", b"hr")
_CLIENT = _session(b"app", b"shop", program=b"mysql")
_LOAD = (
    _said(_CLIENT, b"login"),
    _said(_CLIENT, b"query", "delete", "shop.orders"),
    _said(_CLIENT, b"query", "load", "shop.orders", files=(b"/tmp/psql/s.csv",)),
    _said(_CLIENT, b"infile", infile=b"/tmp/psql/s.csv"),
    _said(_CLIENT, b"query", "select", "shop.orders"),
)

CONVERSATIONS = [
    Conversation(
        "queries and databases",
        "mysql",
        _PYMYSQL,
        (
            _said(_SHOP, b"login"),
            _said(_SHOP, b"query", "set"),
            _said(_SHOP, b"query", "set"),
            _said(_SHOP, b"query", "select", "shop.orders"),
            _said(_HR, b"init_db"),
            _said(_HR, b"query", "insert select", "hr.salaries shop.orders"),
            _said(_HR, b"query", "use"),
            _said(_HR, b"query", "delete", "hr.salaries"),
            _said(_HR, b"query", "commit"),
        ),
    ),
    Conversation(
        "prepared statements and another user",
        "mysql",
        _CONNECTOR,
        (
            _said(_APP, b"login"),
            _said(_APP, b"query", "set"),
            _said(_APP, b"query", "set"),
            _said(_APP, b"stmt_prepare", "select", "shop.orders"),
            _said(_APP, b"stmt_execute", "select", "shop.orders"),
            _said(_APP, b"stmt_execute", "select", "shop.orders"),
            _said(_ROOT, b"change_user"),
            _said(_ROOT, b"query", "set"),
            _said(_ROOT, b"query", "set"),
            _said(_ROOT, b"query", "select", "hr.salaries"),
        ),
    ),
    Conversation("a file of the client", "mysql", _FILE, _LOAD),
    Conversation("a file of the client, compressed", "mysql", _COMPRESSED, _LOAD),
]
